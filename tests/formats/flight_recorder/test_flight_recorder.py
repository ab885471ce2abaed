"""Flight Recorder dumps: read without ever calling anything, and put side by side."""

from __future__ import annotations

import gzip
import json
import os
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordsim.errors import InputError
from coordsim.formats.flight_recorder import import_dumps
from coordsim.formats.flight_recorder.reader import read_dump
from coordsim.formats.shared.repeated_messages import repeated
from tests.budget import examples
from tests.formats.torch_files import FLIGHT, FLIGHT_JSON


def dump(path: Path, change: Any = None) -> Path:
    found = pickle.loads(FLIGHT[1].read_bytes())
    if change is not None:
        change(found)
    path.write_bytes(pickle.dumps(found, protocol=2))
    return path


def test_a_pickle_says_what_python_reads() -> None:
    found, said = read_dump(FLIGHT[0]), pickle.loads(FLIGHT[0].read_bytes())
    assert found.rank == 0
    assert [(each.sequence, each.name, each.created_ns) for each in found.entries] == [
        (each["collective_seq_id"], each["profiling_name"], each["time_created_ns"]) for each in said["entries"]
    ]
    assert found.entries[-1].nbytes == 66_560
    assert found.groups[""].ranks == (0, 1)
    assert found.status["0"]["last_completed_collective"] == 20


def test_json_says_the_same() -> None:
    one, other = read_dump(FLIGHT[0]), read_dump(FLIGHT_JSON)
    assert one.entries == other.entries
    assert (one.groups, one.status, one.version) == (other.groups, other.status, other.version)


def test_two_ranks_side_by_side() -> None:
    found = import_dumps(list(FLIGHT))
    assert found.trace is None
    assert found.summary["ranks"] == 2
    assert found.summary["behind"] == []
    assert found.summary["differ"] == []
    assert found.summary["pattern_bytes"] == [271_392, 66_560]
    assert found.workload_csv == "name,bytes\nbucket.1,66560\nbucket.0,271392\n"
    assert set(found.unknown) == {"run", "gradients", "times"}


def test_who_is_behind_and_what_differs(tmp_path: Path) -> None:
    def waits(found: dict[str, Any]) -> None:
        for entry in found["entries"][-2:]:
            entry["retired"] = False

    def stuck(found: dict[str, Any]) -> None:
        del found["entries"][-2:]
        found["entries"][-1]["profiling_name"] = "gloo:broadcast"

    found = import_dumps([dump(tmp_path / "dump_0", waits), dump(tmp_path / "dump_1", stuck)])
    assert found.summary["behind"] == [1]
    assert [(each["kind"], each["number"]) for each in found.summary["findings"]] == [
        ("operation", 18),
        ("missing", 19),
    ]
    assert found.summary["findings"][0]["calls"] == {
        "rank 0": "gloo:all_reduce of 16,640 Float (66,560 B)", "rank 1": "gloo:broadcast of 16,640 Float (66,560 B)",
    }  # fmt: skip


def test_recorded_times_give_a_duration(tmp_path: Path) -> None:
    def timed(found: dict[str, Any]) -> None:
        for each in found["entries"]:
            each["time_discovered_started_ns"] = each["time_created_ns"] + 1000
            each["time_discovered_completed_ns"] = each["time_created_ns"] + 251_000
            each["state"] = "completed"

    found = import_dumps([dump(tmp_path / "dump_0", timed)])
    assert found.summary["duration_s"] == 250e-6
    assert "times" not in found.unknown


class _Calls:
    def __reduce__(self) -> Any:
        return os.system, ("touch called",)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_nothing_is_called(protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "dump_0"
    path.write_bytes(pickle.dumps({"entries": [], "x": _Calls()}, protocol=protocol))
    with pytest.raises(InputError, match="holds more than plain values"):
        read_dump(path)
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("value", [{1, 2}, bytearray(b"x"), frozenset({1}), complex(1, 2), Path("x"), print])
def test_only_plain_values_are_taken(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "dump_0"
    path.write_bytes(pickle.dumps({"entries": [value]}, protocol=4))
    with pytest.raises(InputError, match="holds more than plain values"):
        read_dump(path)


def test_a_small_pickle_of_endless_lists(tmp_path: Path) -> None:
    """Ten lists in each of forty: short to write by reference, endless to print."""
    laughs: Any = ["ha"]
    for _ in range(40):
        laughs = [laughs] * 10
    for entry in (laughs, {"profiling_name": laughs, "state": "x"}, {"process_group": [laughs], "pg_id": laughs}):
        path = tmp_path / "dump_0"
        path.write_bytes(pickle.dumps({"entries": [entry], "version": laughs}, protocol=4))
        with pytest.raises(InputError) as caught:
            read_dump(path)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"\x80", "no whole pickle"),
        (b"\x80\x04.", "no whole pickle"),
        (pickle.dumps(3), "has no list of entries"),
        (pickle.dumps({"entries": 3}), "has no list of entries"),
        (pickle.dumps({"entries": [3]}), "entries[0]: is no object"),
        (pickle.dumps({"entries": [{"profiling_name": "x", "state": "y"}]}), "is no number of a collective"),
        (pickle.dumps({"entries": [], "pg_config": [1]}), "pg_config: is no object"),
        (pickle.dumps({"entries": [1 << 100_000]}), "a number of absurd length"),
        (b"{}", "has no list of entries"),
        (b'{"entries": [' + b"[" * 200_000, "nested too deep"),
        (b"\x1f\x8b\x08\x00junk", "the compressed file is cut off"),
        (b"\x1f\x8b\x09junk", "damaged compression"),
    ],
)
def test_what_is_no_dump_is_one_error(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "dump_0"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        import_dumps([path])
    assert said in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found.update(version="1.0"), "version: version '1.0', where"),
        (lambda found: found["pg_config"][""].update(ranks="[0, 1, 2]"), "its group of all ranks has 3 ranks"),
    ],
)
def test_dumps_of_two_jobs(change: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="of another job") as caught:
        import_dumps([FLIGHT[0], dump(tmp_path / "dump_1", change)])
    assert said in str(caught.value)


def test_a_rank_twice(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rank 0 has two dumps"):
        import_dumps([FLIGHT[0], dump(tmp_path / "dump_0")])


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordsim.formats.flight_recorder.reader.LARGEST_FILE", 1 << 16)
    path = tmp_path / "dump_0"
    path.write_bytes(gzip.compress(b"\x80" + bytes(1 << 20)))
    with pytest.raises(InputError, match="longer than 65,536 bytes"):
        read_dump(path)


_DATA = FLIGHT[0].read_bytes()


@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(_DATA) - 1), length=st.integers(0, 9), put=st.binary(max_size=6))
def test_damage_is_refused_or_read_and_nothing_else(tmp_path: Path, at: int, length: int, put: bytes) -> None:
    path = tmp_path / "dump_0"
    path.write_bytes(_DATA[:at] + put + _DATA[at + length :])
    with suppress(InputError):
        import_dumps([path])


def test_json_entries_of_a_cut_file(tmp_path: Path) -> None:
    path = tmp_path / "dump_0.json"
    path.write_text(json.dumps({"entries": json.loads(FLIGHT_JSON.read_text())["entries"]})[:-300])
    found = import_dumps([path])
    assert found.summary["collectives"] == 19
    assert "cut" in found.unknown


@pytest.mark.parametrize(
    ("sizes", "pattern"),
    [
        ([], None),
        ([5], None),
        ([5, 5], [5]),
        ([1, 2, 1, 2], [1, 2]),
        ([9, 9, 1, 2, 1, 2, 1, 2], [1, 2]),
        ([1, 2, 3, 4], None),
        ([1, 2, 3, 4, 5, 6, 7, 8, 8], None),
        ([1, 2, 1, 2, 1], [2, 1]),
    ],
)
def test_the_pattern_of_messages(sizes: list[int], pattern: list[int] | None) -> None:
    assert repeated(sizes) == pattern


def test_entries_of_all_dumps_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dumps = [tmp_path / "dump_0.json", tmp_path / "dump_1.json"]
    for dump in dumps:
        dump.write_bytes(FLIGHT_JSON.read_bytes())
    many = import_dumps(dumps[:1]).summary["collectives"]
    monkeypatch.setattr("coordsim.formats.flight_recorder.dumps.MOST_ENTRIES", many + 1)
    import_dumps(dumps[:1])
    with pytest.raises(InputError, match=r"dump_1.json: entries: is beyond .* entries of the job"):
        import_dumps(dumps)
