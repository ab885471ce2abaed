"""Build ``tables.csv``: ``python -m coordsim.cost.distributions.build`` (a few seconds).

Decimal arithmetic with 60 digits, so that the result does not depend on a machine's libm. Run it only to
add a distribution; a test holds that it reproduces the committed file byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from pathlib import Path

DIGITS = 60
SCALE = 1 << 24
_EPS = Decimal(10) ** -40


def probabilities() -> list[Decimal]:
    """Return the 2,049 knots of :attr:`coordsim.cost.distributions.Table.values`, exact."""
    main = [Decimal(i) / 1024 for i in range(1024)]
    tail = [Decimal(1023) / 1024 + Decimal(j) / 2**20 for j in range(1024)]
    return [*main, *tail, 1 - Decimal(1) / 2**32]


def half_normal() -> Iterator[Decimal]:
    """Yield the quantiles sqrt(2) erfinv(p), each computed by Newton from the one before.

    erf is concave for x > 0, so Newton from the left never oversteps.
    """
    slope_at_0 = 2 / _pi().sqrt()
    x = Decimal(0)
    for p in probabilities():
        while True:
            density = slope_at_0 * (-x * x).exp()
            step = (p - _erf(x, density)) / density
            x += step
            if abs(step) < _EPS:
                break
        yield x * Decimal(2).sqrt()


def exponential() -> Iterator[Decimal]:
    """Yield the quantiles -ln(1 - p)."""
    return (-(1 - p).ln() for p in probabilities())


def uniform() -> Iterator[Decimal]:
    """Yield the quantiles p."""
    return iter(probabilities())


def _erf(x: Decimal, density: Decimal) -> Decimal:
    """Return erf(x) = erf'(x) * sum over n of 2**n x**(2n+1) / (2n+1)!!. All terms are positive, so nothing cancels."""
    term = total = x
    n = 0
    while term > total * Decimal(10) ** -DIGITS:
        n += 1
        term *= 2 * x * x / (2 * n + 1)
        total += term
    return density * total


def _pi() -> Decimal:
    """Return pi by Machin's formula: 16 atan(1/5) - 4 atan(1/239)."""
    return 16 * _atan_inverse(5) - 4 * _atan_inverse(239)


def _atan_inverse(k: int) -> Decimal:
    """Return atan(1/k) by its Taylor series."""
    total = power = Decimal(1) / k
    n = 1
    while abs(power) > Decimal(10) ** -(DIGITS + 5):
        power /= -k * k
        n += 2
        total += power / n
    return total


def _integers(quantiles: Iterator[Decimal]) -> list[int]:
    return [int((q * SCALE).to_integral_value(rounding=ROUND_HALF_EVEN)) for q in quantiles]


def render() -> str:
    """Return the text of ``tables.csv``."""
    with localcontext() as context:
        context.prec = DIGITS
        columns = {
            "half-normal": _integers(half_normal()),
            "exponential": _integers(exponential()),
            "uniform": _integers(uniform()),
        }
    lines = [
        "# round(quantile * 2**24), distributions of scale 1, made by coordsim/cost/distributions/build.py.",
        "# Rows: 1024 at i/1024, then 1025 at 1023/1024 + j/2**20, the last one at 1 - 2**-32.",
        ",".join(columns),
        *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True)),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("tables.csv").write_text(render(), encoding="ascii")
