"""Desynchronised and hanging jobs: each is found, with group, number, operation, and which ranks did what."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordsim.formats.flight_recorder import import_dumps
from tests.budget import examples
from tests.formats.flight_recorder.jobs import SCHEDULED, STARTED, Rank, ranks_of, written
from tests.formats.flight_recorder.test_healthy_jobs import _NUMBERS, DATA, dumps, healthy_jobs


def findings(paths: list[Path]) -> list[dict[str, Any]]:
    """What an import of these dumps finds."""
    result: list[dict[str, Any]] = import_dumps(paths).summary["findings"]
    return result


def test_a_rank_that_skips_a_collective() -> None:
    (finding,) = findings(dumps(DATA / "skipped"))
    assert (finding["kind"], finding["number"]) == ("operation", 6)
    assert finding["calls"] == {
        "rank 1": "gloo:barrier", "ranks 0, 2, 3": "gloo:all_reduce of 10 Float (40 B)",
    }  # fmt: skip


def test_a_rank_that_never_arrives() -> None:
    result = import_dumps(dumps(DATA / "never_arrived"))
    (finding,) = result.summary["findings"]
    assert (finding["kind"], finding["number"], finding["operation"]) == ("missing", 5, "gloo:barrier")
    assert (finding["waited_for"], finding["waiting"]) == ([2], [0, 1, 3])
    assert result.summary["behind"] == [2]
    assert "the last call of rank 2 in this group is 4, gloo:all_reduce (ended)" in finding["text"]


def test_a_rank_that_never_arrives_when_the_others_timed_out(tmp_path: Path) -> None:
    """Gloo retires a call that ended in an error as one that ended well."""
    paths = []
    for path in dumps(DATA / "never_arrived"):
        dump = pickle.loads(path.read_bytes())
        for entry in dump["entries"]:
            entry["retired"] = True
        paths.append(tmp_path / path.name)
        paths[-1].write_bytes(pickle.dumps(dump, protocol=2))
    result = import_dumps(paths)
    (finding,) = result.summary["findings"]
    assert (finding["kind"], finding["number"], result.summary["behind"]) == ("missing", 5, [2])
    assert "it is not recorded whether well or with an error" in finding["text"]


@pytest.mark.parametrize(
    ("job", "kind", "odd", "call"),
    [
        ("shapes", "size", "rank 3", "gloo:all_reduce of 12 Float (48 B)"),
        ("dtypes", "type", "rank 0", "gloo:all_reduce of 10 Double (80 B)"),
    ],
)
def test_a_rank_with_another_size_or_type(job: str, kind: str, odd: str, call: str) -> None:
    (finding,) = findings(dumps(DATA / job))
    assert (finding["kind"], finding["number"], finding["calls"][odd]) == (kind, 2, call)


def test_two_groups_called_in_different_orders(tmp_path: Path) -> None:
    ranks = ranks_of(2, {"1": ("first", (0, 1)), "2": ("second", (0, 1))})
    ranks[0].call("1", "all_reduce", [5], state=STARTED)
    ranks[1].call("2", "all_reduce", [5], state=STARTED)
    result = import_dumps(written(tmp_path, ranks))
    assert [finding["kind"] for finding in result.summary["findings"]] == ["cycle", "missing", "missing"]
    assert result.summary["findings"][0]["text"] == (
        "ranks 0, 1 wait for each other: rank 0 in call 1 of group 1 (first) (nccl:all_reduce) for rank 1; "
        "rank 1 in call 1 of group 2 (second) (nccl:all_reduce) for rank 0."
    )


def test_groups_whose_members_gloo_does_not_record() -> None:
    kinds = {(finding["kind"], finding["group"]) for finding in findings(dumps(DATA / "crossed"))}
    assert kinds == {("members-unknown", "group 1"), ("members-unknown", "group 2")}


def test_the_rank_at_the_root_of_a_chain_is_the_one_behind(tmp_path: Path) -> None:
    """Rank 2 never calls group a; rank 1 waits for it there, and so rank 0 waits for rank 1 in group b."""
    ranks = ranks_of(3, {"0": ("default_pg", range(3)), "a": ("a", (1, 2)), "b": ("b", (0, 1))})
    for rank in ranks:
        rank.call("0", "barrier", [])
    ranks[1].call("a", "all_reduce", [4], state=STARTED)
    ranks[0].call("b", "all_reduce", [4], state=STARTED)
    result = import_dumps(written(tmp_path, ranks))
    assert result.summary["behind"] == [2]
    texts = " ".join(finding["text"] for finding in result.summary["findings"])
    assert "rank 2 has made no call of this group" in texts
    assert "rank 1 has made no call of this group, and it is itself in call 1 of group a (a), nccl:all_reduce" in texts


def test_a_device_that_has_not_begun(tmp_path: Path) -> None:
    ranks = ranks_of(3)
    for rank in ranks:
        rank.call("0", "all_reduce", [4], state=SCHEDULED if rank.rank == 1 else STARTED)
    (finding,) = findings(written(tmp_path, ranks))
    assert (finding["kind"], finding["waited_for"], finding["waiting"]) == ("not-started", [1], [0, 2])


def test_a_rank_without_a_dump_is_named_as_that(tmp_path: Path) -> None:
    ranks = ranks_of(3)
    for rank in ranks:
        rank.call("0", "all_reduce", [4], state=STARTED)
    result = import_dumps(written(tmp_path, ranks)[:2])
    (finding,) = result.summary["findings"]
    assert (finding["kind"], finding["waited_for"], result.summary["behind"]) == ("no-dump", [], [])
    assert "rank 2 left no dump, so nothing says whether it made it" in finding["text"].replace("they", "it")
    assert result.unknown["absent"] == "ranks without a dump: 2"


def test_a_call_left_out_shows_by_the_calls_behind_it(tmp_path: Path) -> None:
    ranks = ranks_of(3)
    for rank in ranks:
        for size in (10, 11, 12, 13, 14, 15):
            if not (rank.rank == 2 and size == 12):
                rank.call("0", "all_reduce", [size])
    (finding,) = findings(written(tmp_path, ranks))
    assert (finding["kind"], finding["number"]) == ("size", 3)
    assert "The calls of rank 2 from 3 on equal the others' from 4 on (3 compared)" in finding["text"]
    assert "2 later calls of this group differ too (4, 5)" in finding["text"]


@pytest.mark.parametrize(
    ("name", "sizes", "kind"),
    [
        ("all_to_all", [([4], [4]), ([8], [4])], "size"),
        ("all_gather", [([4], [8]), ([6], [12])], "size"),
        ("_reduce_scatter_base", [([8], [4]), ([10], [5])], "size"),
        ("broadcast", [([8], [8]), ([9], [9])], "size"),
        ("gather", [([3], [3, 3]), ([4], [])], "size"),
        ("scatter", [([3, 3], [3]), ([], [4])], "size"),
    ],
)
def test_sizes_that_do_not_fit(name: str, sizes: list[tuple[list[int], list[int]]], kind: str, tmp_path: Path) -> None:
    ranks = ranks_of(2)
    for rank, (inputs, outputs) in zip(ranks, sizes, strict=True):
        rank.call("0", name, inputs, outputs, state=STARTED)
    assert [finding["kind"] for finding in findings(written(tmp_path, ranks))] == [kind]


def test_coalesced_calls_of_one_number_are_compared_one_by_one(tmp_path: Path) -> None:
    ranks = ranks_of(2)
    for rank, sizes in zip(ranks, ([3, 4, 5], [3, 5, 5]), strict=True):
        rank.coalesced("0", "all_reduce", sizes, state=STARTED)
    (finding,) = findings(written(tmp_path, ranks))
    assert finding["kind"] == "size"
    assert (
        "3 coalesced calls (nccl:all_reduce of 3 Float (12 B); nccl:all_reduce of 5 Float" in finding["calls"]["rank 1"]
    )


def test_a_send_that_nobody_receives(tmp_path: Path) -> None:
    ranks = ranks_of(2)
    for step in range(3):
        ranks[0].message("0", True, 1, 5, state=STARTED if step == 2 else "completed")
        if step < 2:
            ranks[1].message("0", False, 0, 5)
    result = import_dumps(written(tmp_path, ranks))
    (finding,) = result.summary["findings"]
    assert (finding["kind"], finding["waited_for"], finding["waiting"]) == ("send", [1], [0])
    assert "(3 sends, 2 receives recorded)" in finding["text"]
    assert result.summary["behind"] == [1]


def test_a_receive_of_another_size(tmp_path: Path) -> None:
    ranks = ranks_of(2)
    ranks[0].batch("0", [(True, 1, 5)], state=STARTED)
    ranks[1].batch("0", [(False, 0, 6)], state=STARTED)
    (finding,) = findings(written(tmp_path, ranks))
    assert (finding["kind"], finding["calls"]) == (
        "size", {"rank 0": "send of 5 Float (20 B)", "rank 1": "receive of 6 Float (24 B)"},
    )  # fmt: skip


def _members(ranks: list[Rank], group: str, of: int) -> list[Rank]:
    return [ranks[member] for member in ranks[of].groups[group][1]]


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(job=healthy_jobs(), data=st.data())
def test_a_planted_fault_at_the_end_of_a_random_job(
    job: tuple[list[Rank], list[int]], data: st.DataObject, tmp_path: Path
) -> None:
    """The last call of some group: one member does not make it, or makes another one."""
    ranks, _ = job
    victim = data.draw(st.sampled_from(ranks))
    groups = [group for group, (_, members) in victim.groups.items() if len(members) > 1]
    if not groups:
        return
    group = data.draw(st.sampled_from(groups))
    fault = data.draw(st.sampled_from(["missing", "operation", "size", "type"]))
    for rank in _members(ranks, group, victim.rank):
        odd = rank is victim
        if not (odd and fault == "missing"):
            rank.call(
                group, "all_gather" if odd and fault == "operation" else "all_reduce",
                [77 if odd and fault == "size" else 70], state=STARTED,
                dtype="Half" if odd and fault == "type" else "Float",
            )  # fmt: skip
    rings = [data.draw(st.one_of(st.just(10**6), st.integers(1, 30))) for _ in ranks]
    if fault == "missing":
        rings[victim.rank] = 10**6  # a buffer without the group's calls could not say that one is missing
    result = import_dumps(written(tmp_path / str(next(_NUMBERS)), ranks, rings))
    (finding,) = result.summary["findings"]
    assert finding["kind"] == fault
    assert finding["number"] == victim.counters[group].collective + (1 if fault == "missing" else 0) \
        if group in victim.counters else 1  # fmt: skip
    if fault == "missing":
        assert result.summary["behind"] == [victim.rank]
    else:
        assert f"rank {victim.rank}" in finding["calls"] or len(finding["calls"]) == 2


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(job=healthy_jobs(), data=st.data())
def test_a_planted_send_that_nobody_receives(
    job: tuple[list[Rank], list[int]], data: st.DataObject, tmp_path: Path
) -> None:
    ranks, _ = job
    if len(ranks) < 2:
        return
    source, destination = data.draw(st.permutations(range(len(ranks))))[:2]
    sent = data.draw(st.booleans())
    ranks[source].message("0", sent, destination, 41, state=STARTED)
    rings = [data.draw(st.one_of(st.just(10**6), st.integers(1, 30))) for _ in ranks]
    rings[destination] = 10**6
    result = import_dumps(written(tmp_path / str(next(_NUMBERS)), ranks, rings))
    (finding,) = result.summary["findings"]
    assert (finding["kind"], finding["waiting"]) == ("send" if sent else "receive", [source])
    assert result.summary["behind"] == [destination]


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 10**6), min_size=6, max_size=30, unique=True), data=st.data())
def test_a_planted_skip_anywhere(sizes: list[int], data: st.DataObject, tmp_path: Path) -> None:
    """The first number that differs is the skipped one, and what follows says so."""
    skipped = data.draw(st.integers(0, len(sizes) - 4))
    ranks = ranks_of(3)
    for rank in ranks:
        for place, size in enumerate(sizes):
            if not (rank.rank == 1 and place == skipped):
                rank.call("0", "all_reduce", [size])
    (finding,) = findings(written(tmp_path / str(next(_NUMBERS)), ranks))
    assert (finding["kind"], finding["number"]) == ("size", skipped + 1)
    assert f"it looks as if rank 1 left out one call at or before {skipped + 1}" in finding["text"]


def test_a_rank_whose_dump_lists_a_group_of_others_is_not_accused(tmp_path: Path) -> None:
    ranks = ranks_of(4, {"0": ("default_pg", range(4)), "5": ("tp", (0, 2))})
    for rank in ranks:
        rank.call("0", "all_reduce", [4])
    ranks[0].call("5", "all_reduce", [4], state=STARTED)
    paths = written(tmp_path, ranks)
    listed = pickle.loads(paths[0].read_bytes())["pg_config"]
    for path in paths[1:]:
        path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes()) | {"pg_config": listed}))
    result = import_dumps(paths)
    assert result.summary["behind"] == [2]
    assert result.summary["findings"][0]["waited_for"] == [2]
