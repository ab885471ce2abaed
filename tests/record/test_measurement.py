"""Measurements: written and read again whole; what is none is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsim.errors import InputError
from coordsim.record.measurement import (
    KINDS,
    Measurement,
    Series,
    as_json,
    from_json,
    read_measurement,
    write_measurement,
)

SERIES = Series("ping", 2, (20_000.0, 21_000.0), 8, 4, "", -1, "")
MADE = Measurement("MEASURED", {"name": "n", "cores": 2}, {"date": "2026-11-25"}, (SERIES,), {"allreduce": "no torch"})


def test_there_and_back(tmp_path: Path) -> None:
    write_measurement(tmp_path / "m.json", MADE)
    assert read_measurement(tmp_path / "m.json") == MADE
    assert list(tmp_path.iterdir()) == [tmp_path / "m.json"]


@given(st.lists(st.builds(
    Series, st.sampled_from(sorted(KINDS)), st.integers(2, 99), st.lists(st.floats(0, 1e15), min_size=1).map(tuple),
    st.integers(0, 1 << 40), st.integers(0, 1 << 20), st.text(), st.integers(-1, 99), st.text(),
), min_size=1))  # fmt: skip
def test_any_series_there_and_back(series: list[Series]) -> None:
    made = Measurement("RECORDED", {"cores": 0}, {}, tuple(series))
    assert from_json(json.loads(json.dumps(as_json(made))), "made") == made


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(), lambda of: st.lists(of) | st.dictionaries(st.text(), of)
)


@given(JSON)
def test_any_json_is_read_or_refused(found: Any) -> None:
    with pytest.raises(InputError):
        from_json(found, "made")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "coordsim.run/1"}, "schema 'coordsim.run/1' is no measurement's; allowed: coordsim.measurement/1"),
        ({"schema": None}, "schema None"),
        ({"host": None}, "host: is missing, or not a dict"),
        ({"host": {"cores": True}}, "host.cores: True is not a number of cores"),
        ({"source": "GUESSED"}, "source: unknown 'GUESSED'; allowed: MEASURED"),
        ({"series": []}, "nothing was measured"),
        ({"series": [4]}, r"series\[0\]: not an object"),
        ({"series": [{"what": "pin"}]}, r"series\[0\].what: 'pin' is no kind of series.*did you mean 'ping'"),
    ],
)
def test_what_is_no_measurement_is_refused_by_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_json({**as_json(MADE), **change}, "m.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranks": 1}, "ranks: 1 is not a whole number of at least 2"),
        ({"what": "sleep", "ranks": 0}, "ranks: 0 is not a whole number of at least 1"),
        ({"node": None}, "node: None is not text"),
        ({"ranks": None}, "ranks: None"),
        ({"nbytes": -1}, "nbytes: -1"),
        ({"count": 1.5}, "count: 1.5"),
        ({"samples_ns": []}, "has no samples"),
        ({"samples_ns": [1.0, float("nan")]}, "nan is not a time in ns"),
        ({"samples_ns": [-1]}, "-1 is not a time"),
        ({"samples_ns": ["1"]}, "'1' is not a time"),
    ],
)
def test_what_is_no_series_is_refused_by_key(change: dict[str, Any], message: str) -> None:
    found = as_json(MADE)
    found["series"][0] |= change
    with pytest.raises(InputError, match=message):
        from_json(found, "m.json")


@pytest.mark.parametrize(("text", "message"), [("", "not JSON"), ("[1]", "not a JSON object"), ("{}", "schema None")])
def test_files_that_are_none(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_measurement(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_measurement(tmp_path / "none.json")


def test_ranks_beyond_the_cores_are_oversubscribed() -> None:
    many = Series("and", 4, (1.0,), 8)
    counted = Series("coordinator", 32, (1.0,), count=4)
    made = Measurement("MEASURED", {"cores": 2}, {}, (SERIES, many, counted))
    assert [made.oversubscribed(ranks) for ranks in (2, 3)] == [False, True]
    assert list(made.of("and")) == []
    assert list(made.of("and", crowded=True)) == [many]
    assert list(made.of("coordinator")) == [counted]  # its ranks are no processes
    assert [each["oversubscribed"] for each in as_json(made)["series"]] == [False, True, True]
    assert not Measurement("RECORDED", {"cores": 0}, {}, ()).oversubscribed(999)
