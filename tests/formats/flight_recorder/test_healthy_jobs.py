"""Nobody is accused in a job that goes well, whatever its groups, sends and buffers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordsim.formats.flight_recorder import import_dumps
from coordsim.formats.imported import Imported
from tests.budget import examples
from tests.formats.flight_recorder.jobs import Rank, ranks_of, written

DATA = Path(__file__).parents[2] / "data" / "flight_recorder"
_NUMBERS = count()


def dumps(folder: Path) -> list[Path]:
    """The dumps in a folder, by name."""
    return sorted(folder.glob("nccl_trace_rank_*"))


def accuses_nobody(result: Imported) -> None:
    """Check that the import names nobody and nothing."""
    assert result.summary["findings"] == []
    assert [finding for finding in result.summary["findings"] if finding["kind"] != "no-dump"] == []
    assert result.summary["differ"] == []
    assert all("no difference" in group["text"] for group in result.summary["groups"])


@pytest.mark.parametrize(
    "job", ["cases/F_2d_mesh", "cases/F_all_to_all", "cases/F_coalesced", "mesh", "sharded", "ring"]
)
def test_recorded_and_made_jobs_that_ended_well(job: str) -> None:
    accuses_nobody(import_dumps(dumps(DATA / job)))


def test_groups_of_one_name_with_other_members_are_two_groups(tmp_path: Path) -> None:
    ranks = []
    for rank in range(4):
        pair = (0, 1) if rank < 2 else (2, 3)
        recorder = Rank(rank, {"0": ("default_pg", range(4)), "7": ("tp", pair)})
        for step in range(3 + rank // 2):
            recorder.call("7", "all_reduce", [100 + 10 * (rank // 2) + step])
        ranks.append(recorder)
    result = import_dumps(written(tmp_path, ranks))
    accuses_nobody(result)
    assert [(group["name"], group["members"], group["calls"]) for group in result.summary["groups"]] == [
        ("7", [0, 1], 3), ("7", [2, 3], 4),
    ]  # fmt: skip


def test_gloo_without_members_has_no_number_of_ranks() -> None:
    result = import_dumps(dumps(DATA / "mesh"))
    assert result.summary["ranks"] is None
    assert "ranks 0 to 3" in result.unknown["ranks"]
    assert {group["name"]: group["members"] for group in result.summary["groups"]} == {
        "0": [0, 1, 2, 3], "1": [0, 2], "2": [1, 3], "3": [0, 1], "4": [2, 3],
    }  # fmt: skip


def test_a_group_that_leaves_a_rank_out_says_nothing_of_it(tmp_path: Path) -> None:
    ranks = ranks_of(3, {"0": ("default_pg", range(3)), "1": ("pair", (0, 1))})
    for rank in ranks:
        rank.call("0", "barrier", [1])
        if rank.rank < 2:
            rank.call("1", "all_reduce", [5])
    accuses_nobody(import_dumps(written(tmp_path, ranks)))


def test_a_dump_that_was_taken_earlier_is_said_and_not_accused(tmp_path: Path) -> None:
    """An all-reduce that has ended on one rank has been called by all."""
    ranks = ranks_of(2)
    for rank in ranks:
        for _ in range(5 - rank.rank):
            rank.call("0", "all_reduce", [10])
    result = import_dumps(written(tmp_path, ranks))
    accuses_nobody(result)
    assert "the dump of rank 1 ends before call 5, which has ended elsewhere" in result.summary["groups"][0]["text"]


def test_a_call_in_flight_on_all_ranks_is_no_finding(tmp_path: Path) -> None:
    """The host runs ahead of the device: what one rank has queued behind an open call accuses nobody."""
    ranks = ranks_of(3)
    for rank in ranks:
        rank.call("0", "all_reduce", [10])
        for _ in range(1 + 3 * rank.rank):
            rank.call("0", "all_reduce", [10], state="scheduled")
    result = import_dumps(written(tmp_path, ranks))
    accuses_nobody(result)
    assert "call 2 (nccl:all_reduce) was open, and called by all" in result.summary["groups"][0]["text"]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("all_gather", [([4], [12]), ([8], [12])]),
        ("all_gather", [([4], [4, 8]), ([8], [4, 8])]),
        ("reduce_scatter", [([12], [4]), ([12], [8])]),
        ("gather", [([3], [3, 3]), ([3], [])]),
        ("scatter", [([3, 3], [3]), ([], [3])]),
        ("all_to_all", [([4], [3]), ([2], [3])]),
        ("send_counts", [([4], [4]), ([2], [2])]),
    ],
)
def test_ranks_may_have_sizes_of_their_own(name: str, sizes: list[tuple[list[int], list[int]]], tmp_path: Path) -> None:
    ranks = ranks_of(2)
    for rank, (inputs, outputs) in zip(ranks, sizes, strict=True):
        rank.call("0", name, inputs, outputs)
    accuses_nobody(import_dumps(written(tmp_path, ranks)))


def test_one_collective_under_two_names_is_the_same(tmp_path: Path) -> None:
    ranks = ranks_of(2)
    for rank, name in zip(ranks, ("all_gather", "_all_gather_base"), strict=True):
        rank.call("0", name, [4], [8])
    accuses_nobody(import_dumps(written(tmp_path, ranks)))


def test_batches_of_sends_took_numbers_of_collectives_before_torch_2_7(tmp_path: Path) -> None:
    """Ranks 0 and 1 exchange in a batch, and rank 2 does not: their all-reduces are numbered apart."""
    ranks = ranks_of(3, version="2.2")
    for rank in ranks:
        rank.call("0", "all_reduce", [1])
        if rank.rank < 2:
            rank.counters["0"].collective += 1
            rank.record("0", rank.channel("0", True, 1 - rank.rank), [7], [7], "scheduled", p2p=True)
            rank.record("0", "nccl:coalesced", [], [], "completed")
        rank.call("0", "all_reduce", [2])
        rank.call("0", "all_reduce", [3])
    assert [rank.entries[-1]["collective_seq_id"] for rank in ranks] == [4, 4, 3]
    accuses_nobody(import_dumps(written(tmp_path / "whole", ranks)))
    result = import_dumps(written(tmp_path / "cut", ranks, rings=[2, 9, 9]))
    accuses_nobody(result)
    assert "numbers count sends too" in result.summary["groups"][0]["text"]


def test_a_file_that_is_cut_off_accuses_nobody(tmp_path: Path) -> None:
    """PyTorch writes the version and the groups behind the entries: a cut takes them too."""
    ranks = ranks_of(2)
    paths = []
    for rank in ranks:
        for place in range(6):
            rank.call("0", "all_reduce", [10], state="completed" if place < 5 else "started")
        rank.message("0", rank.rank == 0, 1 - rank.rank, 9, state="started")
        dump = json.loads(rank.write(tmp_path / f"nccl_trace_rank_{rank.rank}", as_json=True).read_bytes())
        paths.append(tmp_path / f"nccl_trace_rank_{rank.rank}")
        paths[-1].write_text(json.dumps(dict(sorted(dump.items()))))
    text = paths[1].read_text()
    paths[1].write_text(text[: text.index('"record_id": 4')])
    for order in (paths, paths[::-1]):
        result = import_dumps(order)
        assert result.summary["behind"] == []
        assert {finding["kind"] for finding in result.summary["findings"]} <= {"unclear"}
        assert "nccl_trace_rank_1 is cut off" in result.unknown["cut"]


def test_numbers_without_a_record_accuse_nobody(tmp_path: Path) -> None:
    """Calls captured in a CUDA graph are counted and not recorded."""
    ranks = ranks_of(2)
    for rank in ranks:
        for _ in range(6):
            rank.call("0", "all_reduce", [10])
    del ranks[1].entries[2]
    result = import_dumps(written(tmp_path, ranks))
    accuses_nobody(result)
    assert "some calls are not recorded on rank 1, the first of them call 3" in result.summary["groups"][0]["text"]


@st.composite
def healthy_jobs(draw: st.DrawFn) -> tuple[list[Rank], list[int]]:
    """Ranks on a mesh that made the same random calls in each group, and the lengths of their buffers."""
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    world = rows * columns
    ranks = []
    sides: dict[int, dict[str, tuple[str, Sequence[int]]]] = {}
    for rank in range(world):
        row, column = divmod(rank, columns)
        sides[rank] = {
            "0": ("default_pg", range(world)),
            "tp": ("mesh_tp", range(row * columns, (row + 1) * columns)),
            f"dp{column}": ("mesh_dp", range(column, world, columns)),
        }  # fmt: skip
        ranks.append(Rank(rank, sides[rank]))
    for _ in range(draw(st.integers(0, 12))):
        _step(draw, ranks, columns)
    rings = [draw(st.one_of(st.just(10**6), st.integers(0, 30))) for _ in ranks]
    return ranks, rings


def _step(draw: st.DrawFn, ranks: list[Rank], columns: int) -> None:
    """One call of some group by all its members, or messages between two of them."""
    world = len(ranks)
    kind = draw(st.sampled_from(["reduce", "uneven", "coalesced", "message", "batch"]))
    group = draw(st.sampled_from(["0", "tp", *(f"dp{column}" for column in range(columns))]))
    row = draw(st.integers(0, world // columns - 1))
    members = [rank for rank in ranks if group in rank.groups and (group != "tp" or rank.rank // columns == row)]
    size = draw(st.integers(1, 50))
    if kind == "reduce":
        name = draw(st.sampled_from(["all_reduce", "broadcast", "all_reduce_barrier"]))
        for rank in members:
            rank.call(group, name, [size])
    elif kind == "uneven":
        give = [draw(st.integers(0, 20)) for _ in members]
        take = give[::-1]
        for rank, inputs, outputs in zip(members, give, take, strict=True):
            rank.call(group, "all_to_all", [inputs], [outputs])
    elif kind == "coalesced":
        sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
        for rank in members:
            rank.coalesced(group, "_all_gather_base", sizes)
    elif len(members) > 1:
        first, second = draw(st.permutations(range(len(members))))[:2]
        if kind == "message":
            members[first].message(group, True, second, size)
            members[second].message(group, False, first, size)
        else:
            members[first].batch(group, [(True, second, size), (False, second, size + 1)])
            members[second].batch(group, [(False, first, size), (True, first, size + 1)])


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(job=healthy_jobs())
def test_random_jobs_in_buffers_of_any_length(job: tuple[list[Rank], list[int]], tmp_path: Path) -> None:
    ranks, rings = job
    accuses_nobody(import_dumps(written(tmp_path / str(next(_NUMBERS)), ranks, rings)))


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(job=healthy_jobs(), data=st.data())
def test_dumps_taken_at_different_moments(
    job: tuple[list[Rank], list[int]], data: st.DataObject, tmp_path: Path
) -> None:
    """Cutting the ends of dumps of ended calls accuses nobody of collectives that need all ranks."""
    ranks, _ = job
    for rank in ranks:
        kept = data.draw(st.integers(0, len(rank.entries)))
        while kept and rank.entries[kept - 1]["state"] == "scheduled":  # inside a batch, which would be open
            kept -= 1
        del rank.entries[kept:]
    result = import_dumps(written(tmp_path / str(next(_NUMBERS)), ranks))
    assert [finding for finding in result.summary["findings"] if finding["kind"] != "no-dump"] == []
