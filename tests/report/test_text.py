"""Numbers, tables and paragraphs for people."""

from __future__ import annotations

import pytest

from coordsim.report import text
from coordsim.report.tables import Page, columns, facts


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (text.seconds(1.3410668), "1.341 s"),
        (text.seconds(0), "0"),
        (text.seconds(2.5e-6), "2.5 us"),
        (text.percent(0.95555), "95.6 %"),
        (text.percent(-0.00001), "0.0 %"),
        (text.percent(-0.003), "-0.3 %"),
        (text.number(27600), "27,600"),
        (text.number(0), "0"),
        (text.number(1714.3), "1,714"),
        (text.number(28.94), "28.9"),
        (text.number(2.567), "2.57"),
        (text.number(0.8612), "0.86"),
        (text.size(418_000_000), "398.6 MiB"),
        (text.si(1.5378e18, "FLOP/s"), "1.538 EFLOP/s"),
        (text.si(12, "FLOP/s"), "12 FLOP/s"),
        (text.plural(1, "step"), "1 step"),
        (text.plural(4600, "node"), "4,600 nodes"),
    ],
)
def test_numbers_for_people(shown, expected):
    assert shown == expected


def test_columns_line_up():
    rows = [["name", "n"], ["a", "1,000"], ["longer", "2"]]
    assert columns(rows, "lr", indent=1) == [" name        n", " a       1,000", " longer      2"]


def test_a_number_stays_with_its_unit():
    lines = Page(width=22).wrap("saves the whole job 11.1 % of it")
    assert lines == ["saves the whole job", "11.1 % of it"]
    assert Page(width=24).wrap("a long way to go --set a=1") == ["a long way to go", "--set a=1"]


def test_wrapped_values_hang_under_each_other():
    assert facts([("a", "one two three"), ("bc", "x")], Page(width=13)) == ["  a   one two", "      three", "  bc  x"]


def test_bars():
    page = Page()
    assert page.bar(0, 8) == ""
    assert page.bar(1, 8) == "█" * 8
    assert page.bar(0.5, 3) == "█▌"
    assert page.bar(1e-6, 8) == "▏"
    assert page.bar(7.0, 2) == "██"
    assert page.bar(-1.0, 2) == ""
    assert Page(unicode=False).bar(0.5, 8) == "####"


def test_colour_only_where_wanted():
    assert Page().bold("x") == Page().dim("x") == "x"
    assert Page(colour=True).bold("x") == "\x1b[1mx\x1b[0m"


def test_a_page_keeps_its_own_colours_and_nothing_else_that_steers() -> None:
    page = "\x1b[1mtitle\x1b[0m\n\x1b[2Jname\x07\x9b\u202e"
    assert text.printable_page(page, colour=True) == "\x1b[1mtitle\x1b[0m\n\\x1b[2Jname\\x07\\x9b\\u202e"
    assert text.printable_page(page) == "\\x1b[1mtitle\\x1b[0m\n\\x1b[2Jname\\x07\\x9b\\u202e"


def test_facts_are_copied_with_their_names_spelt_out() -> None:
    facts = {"a\x1b": ["b\x07", 1, None, {"c": ("d\n", 2.5)}]}
    assert text.printable_all(facts) == {"a\\x1b": ["b\\x07", 1, None, {"c": ("d\\n", 2.5)}]}
    assert "a\x1b" in facts
