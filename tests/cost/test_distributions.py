"""The committed tables: against SciPy, against their own script, and as a source of samples."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from coordsim.cost.distributions import NAMES, build, load, sample_q16, scaled_table

LAWS: dict[str, Any] = {
    "half-normal": stats.halfnorm,
    "normal": stats.norm,
    "exponential": stats.expon,
    "uniform": stats.uniform,
}
SAMPLES = 200_000
KS_LIMIT = 0.005
"""Above 1.95 / sqrt(200,000) = 0.0044, the 0.1 % point of the Kolmogorov distribution."""

every_law = pytest.mark.parametrize("name", NAMES)


def knots() -> NDArray[np.float64]:
    return np.concatenate([np.arange(1024) / 1024, 1023 / 1024 + np.arange(1024) / 2**20, [1 - 2.0**-32]])


def draws(name: str, sigma_ppm: int = 1_000_000) -> NDArray[np.float64]:
    """Samples of scale 1 from a fixed stream of 32-bit words, axis [sample]; vectorised sample_q16."""
    table = load(name)
    base, slope = (a.astype(np.int64) for a in scaled_table(table.name, sigma_ppm))
    u32 = np.random.Generator(np.random.PCG64(20)).integers(0, 1 << 32, SAMPLES, dtype=np.int64)
    u = u32 & 0x7FFFFFFF
    last = (u >> 21) == 1023
    index = np.where(last, 1024 + ((u >> 11) & 1023), u >> 21)
    fraction = np.where(last, (u & 2047) << 1, (u >> 9) & 4095)
    value = base[index] + ((slope[index] * fraction) >> 12)
    if table.symmetric:
        value = np.where(u32 >> 31 == 1, -value, value)
    for k in range(100):
        assert sample_q16(int(u32[k]), base, slope, table.symmetric) == value[k]
    return value / 65_536


def ks(sample: NDArray[np.float64], law: Any) -> float:
    return float(stats.kstest(sample, law.cdf).statistic)


@every_law
def test_against_scipy(name: str) -> None:
    law = LAWS["half-normal" if name == "normal" else name]
    table = load(name)
    p = knots()
    expected = law.ppf(p)
    expected[1024:] = law.isf(1 - p[1024:])
    assert len(table.values) == 2049
    np.testing.assert_allclose(np.array(table.values) / 2**24, expected, rtol=0, atol=1e-6)


def test_the_script_reproduces_the_committed_file() -> None:
    committed = files("coordsim.cost.distributions").joinpath("tables.csv").read_bytes()
    assert build.render().encode("ascii") == committed


def test_precision_is_not_what_decides_a_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    committed = build.render()
    monkeypatch.setattr(build, "DIGITS", 75)
    assert build.render() == committed


@every_law
def test_moments_and_shape(name: str) -> None:
    sample, law = draws(name), LAWS[name]
    assert sample.mean() == pytest.approx(law.mean(), abs=4 * law.std() / SAMPLES**0.5)
    assert sample.std() == pytest.approx(law.std(), rel=0.01)
    assert ks(sample, law) < KS_LIMIT


WRONG = [("normal", stats.logistic(0, 0.55)), ("exponential", stats.gamma(1.1))]


@pytest.mark.parametrize(("name", "other"), WRONG)
def test_a_wrong_law_fails(name: str, other: Any) -> None:
    assert ks(draws(name), other) > 2 * KS_LIMIT


def test_a_table_without_its_sign_or_its_scale_fails() -> None:
    assert ks(abs(draws("normal")), stats.norm) > KS_LIMIT
    assert ks(draws("normal") * 1.03, stats.norm) > KS_LIMIT


@pytest.mark.parametrize("name", ["half-normal", "exponential", "uniform"])
@pytest.mark.parametrize("survival", [1e-3, 1e-4, 1e-5, 1e-6])
def test_tail(name: str, survival: float) -> None:
    base, slope = scaled_table(name, 1_000_000)  # type: ignore[arg-type]
    u = round((1 - survival) * 2**31)
    assert sample_q16(u, base, slope, False) / 65_536 == pytest.approx(LAWS[name].isf(survival), rel=0.02)


@every_law
@pytest.mark.parametrize("sigma_ppm", [0, 1, 15_000, 1_000_000, 1_500_000])
def test_a_scaled_table_never_falls(name: str, sigma_ppm: int) -> None:
    base, slope = scaled_table(name, sigma_ppm)  # type: ignore[arg-type]
    assert base.dtype == slope.dtype == np.int32
    assert base.shape == slope.shape == (2048,)
    assert (slope >= 0).all()
    assert (np.diff(base.astype(np.int64)) >= 0).all()
    values = [sample_q16(u, base, slope, False) for u in [*range(0, 1 << 31, (1 << 17) - 1), (1 << 31) - 1]]
    assert values == sorted(values)


def test_knots_by_hand() -> None:
    base, slope = scaled_table("uniform", 500_000)
    assert (base[512], slope[512], slope[1023]) == (16_384, 32, 0)
    assert sample_q16(1 << 30, base, slope, False) == 16_384
    assert sample_q16(1 << 31 | 1 << 30, base, slope, False) == 16_384, "the sign bit is ignored"
    assert sample_q16(1 << 31 | 1 << 30, base, slope, True) == -16_384


def test_the_last_segment_is_refined() -> None:
    base, slope = scaled_table("exponential", 1_000_000)
    starts = [sample_q16((1023 << 21) + (j << 11), base, slope, False) for j in range(1024)]
    assert starts == [int(v) for v in base[1024:]]
    gap = starts[0] - sample_q16((1023 << 21) - 1, base, slope, False)
    assert 0 <= gap <= slope[1022] / 4096 + 1, "no jump before the tail"
    assert sample_q16((1 << 31) - 1, base, slope, False) > 22 * 65_536


@pytest.mark.parametrize(("name", "sigma_ppm"), [("exponential", 2_500_000), ("uniform", 2_000_000_000_000)])
def test_refuses_what_does_not_fit_32_bits(name: str, sigma_ppm: int) -> None:
    with pytest.raises(ValueError, match="32-bit"):
        scaled_table(name, sigma_ppm)  # type: ignore[arg-type]


def test_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="half-normal"):
        load("gauss")
    with pytest.raises(ValueError, match="negative"):
        scaled_table("normal", -1)
