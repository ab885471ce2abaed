"""Dumps of every version and writer: the keys that changed, the names of backends, and what a dump leaves out."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from coordsim.errors import InputError
from coordsim.formats.flight_recorder import import_dumps
from coordsim.formats.flight_recorder.reader import rank_of, read_dump
from tests.formats.flight_recorder.jobs import STARTED, ranks_of, written


def torch_2_2(calls: int) -> list[dict[str, Any]]:
    """A list of entries without version, groups and types; times in us."""
    return [
        {
            "pg_id": 0, "seq_id": number + 1, "profiling_name": "nccl:all_reduce", "retired": number < 2, "frames": [],
            "time_created_us": 1_700_000_000_000_000 + number, "input_sizes": [[3, 4]], "output_sizes": [[3, 4]],
            "state": "completed" if number < 2 else "scheduled",
        }
        for number in range(calls)
    ]  # fmt: skip


def torch_2_3(calls: int) -> dict[str, Any]:
    """Version 1.4: one counter of calls, groups as lists of ranks under a number."""
    entries = [
        {
            "record_id": number, "pg_id": 0, "seq_id": number + 1, "op_id": number + 1, "frames": [],
            "profiling_name": "nccl:all_reduce", "time_created_ns": 1_700_000_000_000_000_000 + number,
            "input_sizes": [[3, 4]], "output_sizes": [[3, 4]], "state": "completed" if number < 2 else "scheduled",
            "time_discovered_started_ns": None, "time_discovered_completed_ns": None, "retired": number < 2,
        }
        for number in range(calls)
    ]  # fmt: skip
    return {"version": "1.4", "pg_config": {0: [0, 1]}, "entries": entries}


def pickled(folder: Path, *dumps: Any) -> list[Path]:
    """One file a rank."""
    paths = []
    for rank, dump in enumerate(dumps):
        paths.append(folder / f"nccl_trace_rank_{rank}")
        paths[-1].write_bytes(pickle.dumps(dump, protocol=2))
    return paths


@pytest.mark.parametrize(("make", "ranks"), [(torch_2_2, None), (torch_2_3, 2)])
def test_dumps_of_torch_2_2_and_2_3(make: Any, ranks: int | None, tmp_path: Path) -> None:
    result = import_dumps(pickled(tmp_path, make(3), make(2)))
    assert result.summary["ranks"] == ranks
    assert ("ranks" in result.unknown) == (ranks is None)
    assert result.summary["behind"] == [1]
    assert result.summary["findings"][0]["number"] == 3


def test_times_in_us_become_ns(tmp_path: Path) -> None:
    (path,) = pickled(tmp_path, torch_2_2(1))
    assert read_dump(path).entries[0].created_ns == 1_700_000_000_000_000_000


def test_one_counter_for_collectives_and_sends(tmp_path: Path) -> None:
    """Before torch 2.4 a send took a number of its own, on the ranks that sent."""
    dumps = []
    for rank in range(3):
        entries = torch_2_3(1)["entries"]
        if rank < 2:
            entries.append({**entries[0], "profiling_name": "nccl:send 0->1" if rank == 0 else "nccl:recv 1<-0"})
        entries += [dict(entries[0]), dict(entries[0])]
        for number, entry in enumerate(entries):
            entry.update(record_id=number, seq_id=number + 1, state="completed", retired=True)
        entries[-1]["profiling_name"] = "nccl:broadcast"
        dumps.append({"version": "1.4", "pg_config": {0: [0, 1, 2]}, "entries": entries})
    assert import_dumps(pickled(tmp_path, *dumps)).summary["findings"] == []


@pytest.mark.parametrize("version", ["2.11", "3.0", "test"])
def test_a_version_that_is_not_known_is_named(version: str, tmp_path: Path) -> None:
    ranks = ranks_of(2, version=version)
    for rank in ranks:
        rank.call("0", "all_reduce", [4])
    result = import_dumps(written(tmp_path, ranks))
    assert f"version '{version}' is not one of those known" in result.unknown["version"]


@pytest.mark.parametrize("version", ["1.0", "2.1", "2.4", "2.9", "2.10"])
def test_known_versions_are_not_named(version: str, tmp_path: Path) -> None:
    ranks = ranks_of(1, version=version)
    ranks[0].call("0", "all_reduce", [4])
    assert "version" not in import_dumps(written(tmp_path, ranks)).unknown


@pytest.mark.parametrize(
    "backend", ["nccl", "nccl2", "ncclx", "gloo", "hccl", "xccl", "ucc", "mpi", "rccl", "mccl", "own"]
)
def test_calls_of_every_backend_are_compared(backend: str, tmp_path: Path) -> None:
    ranks = ranks_of(2)
    for rank in ranks:
        rank.call("0", "all_reduce", [4 + rank.rank], state=STARTED)
        rank.entries[0]["profiling_name"] = f"{backend}:all_reduce"
    result = import_dumps(written(tmp_path, ranks))
    assert [finding["kind"] for finding in result.summary["findings"]] == ["size"]
    assert result.summary["operations"] == {f"{backend}:all_reduce": 2}
    assert "operations" not in result.unknown


def test_operations_without_rules_are_listed_with_their_count(tmp_path: Path) -> None:
    ranks = ranks_of(2)
    for rank in ranks:
        rank.call("0", "window_put", [4 + rank.rank])
        rank.call("0", "all_reduce", [4])
    result = import_dumps(written(tmp_path, ranks))
    assert result.summary["findings"] == []
    assert result.summary["not_compared"] == {"nccl:window_put": 2}
    assert "nccl:window_put (2)" in result.unknown["operations"]


def test_numbers_as_text_and_types_as_one_word(tmp_path: Path) -> None:
    """As PyTorch's own tests of its analyzer write them."""
    entry = {
        "record_id": 0, "profiling_name": "nccl:all_reduce", "state": "completed", "process_group": ("0", "default"),
        "input_sizes": [[4, 4]], "output_sizes": [[4, 4]], "input_dtypes": "float32", "output_dtypes": "float32",
        "collective_seq_id": "0", "p2p_seq_id": "0", "time_created_ns": 0, "frames": [], "is_p2p": False,
    }  # fmt: skip
    config = {"0": {"name": "0", "desc": "default_pg", "ranks": "[0, 1]"}}
    dumps = [{"version": "2.8", "entries": [entry], "pg_config": config} for _ in range(2)]
    result = import_dumps(pickled(tmp_path, *dumps))
    assert (result.summary["ranks"], result.summary["findings"]) == (2, [])


def test_a_dump_without_entries_in_json_is_a_rank_without_calls(tmp_path: Path) -> None:
    """PyTorch leaves the list out where it would be empty."""
    ranks = ranks_of(2)
    ranks[0].call("0", "all_reduce", [4], state=STARTED)
    paths = written(tmp_path, ranks)
    paths[1].write_text(json.dumps({
        "version": "2.10", "pg_config": {"0": {"name": "0", "desc": "default_pg", "ranks": "[0, 1]"}}, "pg_status": {},
    }))  # fmt: skip
    result = import_dumps(paths)
    assert result.summary["behind"] == [1]
    assert "rank 1 has made no call of this group" in result.summary["findings"][0]["text"]


def test_a_dump_of_open_calls_only_says_nothing_of_those_that_ended(tmp_path: Path) -> None:
    ranks = ranks_of(2)
    ranks[0].call("0", "all_reduce", [4], state=STARTED)
    paths = written(tmp_path, ranks)
    status = {"0": {"last_enqueued_collective": 7, "last_started_collective": 7, "last_completed_collective": 7}}
    config = {"0": {"name": "0", "desc": "default_pg", "ranks": "[0, 1]"}}
    paths[1].write_text(json.dumps({"version": "2.10", "pg_config": config, "pg_status": status}))
    result = import_dumps(paths)
    assert (result.summary["behind"], [finding["kind"] for finding in result.summary["findings"]]) == ([], ["unclear"])


def test_members_and_rank_that_a_dump_says_itself(tmp_path: Path) -> None:
    entry = {
        "profiling_name": "nccl:all_reduce", "state": "started", "process_group": ["0", ""], "collective_seq_id": 1,
        "process_group_ranks": [0, 5], "input_sizes": [[4]], "input_dtypes": ["Float"], "record_id": 0,
    }  # fmt: skip
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"version": "2.10", "rank": 5, "entries": [entry], "pg_config": {}}))
    result = import_dumps([path])
    assert result.summary["by_rank"][0]["rank"] == 5
    assert result.summary["groups"][0]["members"] == [0, 5]
    assert result.unknown["absent"] == "ranks without a dump: 0"


def test_json_and_pickle_are_one(tmp_path: Path) -> None:
    ranks = ranks_of(2)
    for rank in ranks:
        rank.call("0", "all_reduce", [4])
        rank.coalesced("0", "_all_gather_base", [3, 4])
        rank.message("0", rank.rank == 0, 1 - rank.rank, 9)
    (tmp_path / "json").mkdir()
    texts = [rank.write(tmp_path / "json" / f"nccl_trace_rank_{rank.rank}", as_json=True) for rank in ranks]
    assert import_dumps(texts).summary == import_dumps(written(tmp_path / "pickle", ranks)).summary


@pytest.mark.parametrize(
    ("name", "rank"),
    [
        ("nccl_trace_rank_0", 0), ("nccl_trace_rank_container-node02_5", 5), ("flight_rank12.pickle", 12),
        ("3.json", 3), ("rank_7_dump.json", 7),
        ("comm_lib_trace_rank_511", 511), ("dump_1.json.gz", 1), ("trace.json", None),
        ("host7.json", None),
    ],
)  # fmt: skip
def test_the_rank_in_a_file_name(name: str, rank: int | None) -> None:
    assert rank_of(name) == rank


def test_dumps_without_a_rank_are_compared_and_named_by_file(tmp_path: Path) -> None:
    ranks = ranks_of(2)
    for rank in ranks:
        rank.call("0", "all_reduce", [4 + rank.rank], state=STARTED)
    paths = [rank.write(tmp_path / name) for rank, name in zip(ranks, ("first", "second"), strict=True)]
    result = import_dumps(paths)
    assert result.summary["findings"][0]["calls"].keys() == {"first", "second"}
    assert "rank" in result.unknown


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x80\x02]r\xff\xff\xff\x7f.", "remembers more than"),
        (b"\x80\x02]p99999999999\n.", "remembers more than"),
        (b"\x80\x02" + b"N" * (1 << 25) + b".", "bytes of operations"),
        (b"\x80\x02" + b"]" * (1 << 23) + b".", "lists, dicts and tuples"),
        (b"\x80\x02X\xff\xff\xff\x7fa.", "is cut off"),
        (b"\x80\x02cos\nsystem\n.", "holds more than plain values: GLOBAL"),
        (b"\x80\x02\x97.", "holds more than plain values"),
    ],
)
def test_a_hostile_pickle_is_one_error(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "dump_0"
    path.write_bytes(data)
    with pytest.raises(InputError, match=said):
        import_dumps([path])


def test_groups_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordsim.formats.flight_recorder.job.MOST_GROUPS", 2)
    ranks = ranks_of(1, {str(number): ("", (0,)) for number in range(3)})
    for group in ranks[0].groups:
        ranks[0].call(group, "all_reduce", [1])
    with pytest.raises(InputError, match="more than 2 process groups"):
        import_dumps(written(tmp_path, ranks))


def test_a_dump_without_a_version_has_none(tmp_path: Path) -> None:
    ranks = ranks_of(2, version="")
    for rank in ranks:
        rank.call("0", "all_reduce", [4])
    result = import_dumps(written(tmp_path, ranks))
    assert result.summary["version"] is None
    assert "do not say their version" in result.unknown["version"]
