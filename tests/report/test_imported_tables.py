"""Tables of an import on a narrow page."""

from __future__ import annotations

from typing import Any

from coordsim.report.imported import import_report
from coordsim.report.tables import Page


def report(rows: list[dict[str, Any]], width: int = 80) -> list[str]:
    facts = {
        "format": "nccl-inspector", "files": ["a"], "found": {"ranks": 4, "collectives_table": rows}, "unknown": {},
        "not_read": {}, "gives": {"run": False, "workload": False, "cluster": False},
    }  # fmt: skip
    return import_report(facts, "a", Page(width=width)).splitlines()


def test_rows_stand_under_their_names_with_units() -> None:
    lines = report([{"comm": 0, "collective": "AllReduce", "bytes": 1 << 20, "median_s": 0.001, "bus_Bps": 2e9}])
    at = lines.index("collectives")
    assert lines[at + 1].split() == ["comm", "collective", "bytes", "median", "bus"]
    assert lines[at + 2].split() == ["0", "AllReduce", "1", "MiB", "1", "ms", "2", "GB/s"]


def test_what_no_row_has_is_no_column_and_what_one_lacks_is_a_dash() -> None:
    lines = report([{"comm": 0, "a": None, "b": 1}, {"comm": 1, "a": None, "b": None}])
    at = lines.index("collectives")
    assert [line.split() for line in lines[at + 1 : at + 4]] == [["comm", "b"], ["0", "1"], ["1", "-"]]


def test_columns_that_do_not_fit_and_rows_beyond_twelve_are_left_to_json() -> None:
    lines = report([{f"column_{place}": place for place in range(20)} for _ in range(30)])
    assert max(map(len, lines)) <= 80
    said = next(line for line in lines if "with --json" in line)
    assert said.startswith("  with --json: 18 more rows; columns column 8")


def test_a_long_name_does_not_widen_the_page() -> None:
    assert max(map(len, report([{"id": "x" * 500, "calls": 3}]))) <= 80


def test_bytes_of_a_step_have_a_unit() -> None:
    facts = {
        "format": "kineto", "files": ["a"], "found": {"bytes_per_step": 5_242_880}, "unknown": {}, "not_read": {},
        "gives": {"run": True},
    }  # fmt: skip
    lines = import_report(facts, "a", Page(width=80)).splitlines()
    assert any(line.split() == ["bytes", "per", "step", "5", "MiB"] for line in lines)
