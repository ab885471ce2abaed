"""Units: exact, mandatory, and refused with a message that says what to write."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsim import units

PARSERS = (
    units.parse_time,
    units.parse_picoseconds,
    units.parse_bytes,
    units.parse_rate,
    units.parse_flops,
    units.parse_count_flops,
    units.parse_power,
    units.parse_share,
    units.parse_permille,
    units.parse_percent,
)
NEED_A_UNIT = PARSERS[:7]
INT64 = st.integers(0, units.INT64_MAX)


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (units.parse_time, "3.5us", 3_500),
        (units.parse_time, "3.5 µs", 3_500),
        (units.parse_time, " 1.5e-3s ", 1_500_000),
        (units.parse_time, "2min", 120_000_000_000),
        (units.parse_time, "1h", 3_600_000_000_000),
        (units.parse_time, ".5ms", 500_000),
        (units.parse_picoseconds, "4.28ns", 4_280),
        (units.parse_picoseconds, "7ps", 7),
        (units.parse_bytes, "64MiB", 67_108_864),
        (units.parse_bytes, "64MB", 64_000_000),
        (units.parse_bytes, "16KiB", 16_384),
        (units.parse_bytes, "1.5kB", 1_500),
        (units.parse_rate, "25GB/s", 25_000_000_000),
        (units.parse_rate, "100Gbit/s", 12_500_000_000),
        (units.parse_rate, "1MiB/s", 1_048_576),
        (units.parse_flops, "60TF/s", 60_000_000_000_000),
        (units.parse_flops, "60TFLOP/s", 60_000_000_000_000),
        (units.parse_count_flops, "74.7TFLOP", 74_700_000_000_000),
        (units.parse_power, "300W", 300_000),
        (units.parse_power, "13MW", 13_000_000_000),
        (units.parse_share, "8%", 80_000),
        (units.parse_share, "0.08", 80_000),
        (units.parse_share, 0.08, 80_000),
        (units.parse_share, Decimal("0.08"), 80_000),
        (units.parse_share, "80000ppm", 80_000),
        (units.parse_share, 1, 1_000_000),
        (units.parse_permille, Decimal("1.1"), 1_100),
        (units.parse_percent, "75%", 75),
    ],
)
def test_a_quantity_is_read_in_its_base_unit(parse, text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "ns"), [("0.4ns", 0), ("0.5ns", 1), ("1.5ns", 2), ("2.5ns", 3), ("2.4999ns", 2)]
)
def test_times_round_half_up_to_whole_ns(text, ns):
    assert units.parse_time(text) == ns


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("zero", [0, "0", "0.0"])
def test_a_plain_zero_is_zero_of_anything(parse, zero):
    assert parse(zero) == 0


@pytest.mark.parametrize("parse", NEED_A_UNIT)
@pytest.mark.parametrize("bare", ["5", 5, 5.5, Decimal("5.5"), "1e3"])
def test_a_bare_number_is_refused_with_an_example(parse, bare):
    with pytest.raises(ValueError, match=r"has no unit; write for example"):
        parse(bare)


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    "bad",
    ["", "ms", "nan", "NaN s", "inf", "-inf", "five ms", "1,5ms", "1_000ms", "٣ms", None, True, [1], {}],
)
def test_what_is_not_a_number_is_refused(parse, bad):
    with pytest.raises(ValueError, match="write for example"):
        parse(bad)


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (units.parse_time, "5MS", "unknown unit 'MS'"),
        (units.parse_time, "5MB", "unknown unit 'MB'"),
        (units.parse_time, "0 parsecs", "unknown unit"),
        (units.parse_bytes, "5KB", r"unknown unit 'KB'.*kB.*KiB"),
        (units.parse_rate, "5GB", "unknown unit 'GB'"),
        (units.parse_rate, "5Gb/s", r"unknown unit 'Gb/s'.*Gbit/s"),
        (units.parse_bytes, "-1B", "negative"),
        (units.parse_time, "-0.1ns", "negative"),
        (units.parse_share, -0.5, "negative"),
        (units.parse_time, "9223372037s", "too large"),
        (units.parse_bytes, "9300PB", "too large"),
        (units.parse_time, "1e500s", "out of range"),
        (units.parse_time, "1e99999999999999999999s", "out of range"),
        (units.parse_time, "1" * 100 + "s", "longer than"),
    ],
)
def test_other_mistakes_are_named(parse, text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


@given(INT64, st.sampled_from([("ns", 0), ("us", 3), ("ms", 6), ("s", 9)]))
def test_every_time_survives_every_unit_exactly(ns, unit):
    name, power = unit
    whole, part = divmod(ns, 10**power)
    assert units.parse_time(f"{whole}.{part:0{power}d}{name}" if power else f"{ns}{name}") == ns


@given(INT64)
def test_whole_base_units_are_exact(number):
    assert units.parse_bytes(f"{number}B") == number
    assert units.parse_rate(f"{number}B/s") == number
    assert units.parse_flops(f"{number}F/s") == number
    assert units.parse_power(f"{number}mW") == number


@given(st.integers(0, 10**18))
def test_what_people_read_can_be_read_back_to_four_digits(number):
    for form, parse in (
        (units.format_time, units.parse_time),
        (units.format_bytes, units.parse_bytes),
        (units.format_rate, units.parse_rate),
    ):
        assert abs(parse(form(number)) - number) * 2000 <= number + 1000  # and half a unit when parsed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (units.format_time(0), "0 ns"),
        (units.format_time(3_500), "3.5 us"),
        (units.format_time(1_340_000_000), "1.34 s"),
        (units.format_time(123_456), "123.5 us"),
        (units.format_time(-1_500), "-1.5 us"),
        (units.format_bytes(64 * 2**20), "64 MiB"),
        (units.format_bytes(100), "100 B"),
        (units.format_rate(25_000_000_000), "25 GB/s"),
    ],
)
def test_formats(text, expected):
    assert text == expected
