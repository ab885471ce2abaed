"""Causes put into a job that is played on an injected clock: the right part, the right rank, the right place, and what
taking the cause away saves; and nobody where there is none, however noisy the machine."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from coordsim.record.ranks import merge_records
from tests.record.ddp_job import Causes, Job
from tests.told import told

SINGLES: dict[str, dict[str, Any]] = {
    "data": {"DATA": 25}, "data late": {"DATA_LATE": 30}, "fwd": {"FWD": 22}, "fwd all": {"FWD_ALL": 20},
    "bwd": {"BWD": 17}, "bwd all": {"BWD": 17, "BWD_ALL": True}, "clip": {"CLIP": 15}, "opt": {"OPT": 13},
    "opt late": {"OPT": 13, "OPT_LATE": True}, "log": {"LOG": 11}, "eval": {"EVAL": 40},
}  # fmt: skip
LATE_AT = {
    "data late": (1, "input_stall"), "fwd": (1, "forward"), "bwd": (1, "backward"), "opt late": (1, "optimizer"),
    "log": (0, "between_steps"),
}  # fmt: skip
"""Cause -> the rank that is late by it, and the part in which it is."""
PAIRS = [pair for pair in combinations(SINGLES, 2) if not SINGLES[pair[0]].keys() & SINGLES[pair[1]].keys()]
SKEWS_MS = (0.0, 3.5, -1200.0, 0.7)


def played(names: tuple[str, ...], ranks: int, **more: Any) -> tuple[Job, dict[str, Any]]:
    """A job with these causes, and what a report says of it."""
    causes = Causes(**{key: value for name in names for key, value in SINGLES[name].items()})
    job = Job(ranks=ranks, causes=causes, seed=len("".join(names)), skews_ms=SKEWS_MS[:ranks], **more)
    return job, told(job.records())


def close(told_s: float, own_ms: float) -> bool:
    return abs(1e3 * told_s - own_ms) <= max(2.0, 0.1 * own_ms)


@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("names", [*((name,) for name in SINGLES), *PAIRS], ids=" and ".join)
def test_every_part_is_what_the_shown_rank_measured_itself(names: tuple[str, ...], ranks: int) -> None:
    job, facts = played(names, ranks)
    own, parts = job.own[facts["shown_rank"]], facts["breakdown_s"]
    for part, measured in (("input_stall", "data"), ("forward", "fwd"), ("before_optimizer", "clip"),
                           ("optimizer", "opt")):  # fmt: skip
        assert close(parts[part], own[measured]), part
    waits = ("straggler_wait", "fusion_copy", "exposed_collective")
    assert close(parts["backward"] + sum(parts[part] for part in waits), own["bwd"])
    assert sum(parts.values()) == pytest.approx(facts["step_time_s"]["mean"], rel=1e-9)
    evaluation = job.causes.EVAL * 2 / 20
    logged = job.causes.LOG if facts["shown_rank"] == 0 else 0.0
    assert close(parts["between_steps"], evaluation + logged)


def lateness(names: tuple[str, ...]) -> dict[int, dict[str, float]]:
    """Rank -> part -> how much longer than on a rank without a cause, ms."""
    found: dict[int, dict[str, float]] = {}
    for name in names:
        if name in LATE_AT:
            rank, part = LATE_AT[name]
            settings = SINGLES[name]
            found.setdefault(rank, {})[part] = next(value for value in settings.values() if value is not True)
    return found


@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("names", [*((name,) for name in SINGLES), *PAIRS], ids=" and ".join)
def test_the_late_rank_is_named_with_its_place_and_nobody_else_is(names: tuple[str, ...], ranks: int) -> None:
    late = lateness(names)
    if ranks == 2 and len(late) == 2:  # each is late against the other: what counts is the difference
        first, second = sorted(late, key=lambda rank: -sum(late[rank].values()))
        late = {first: late[first] | {part: -value for part, value in late[second].items()}}
    _, facts = played(names, ranks)
    named = {each["ranks"][0]: each for each in facts["stragglers"]["late"]}
    assert set(named) == set(late)
    for rank, parts in late.items():
        assert close(named[rank]["late_s"], sum(parts.values()))
        onset = named[rank]["onset"]
        assert {each["part"] for each in onset["parts"]} == set(parts)
        assert all(close(each["excess_s"], parts[each["part"]]) for each in onset["parts"])
        largest = max(parts, key=parts.__getitem__)
        assert onset["from"] == ("tensor" if largest == "backward" else largest)
        assert onset["tensor"] == ("layer.2" if largest == "backward" else None)


@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("name", [*LATE_AT, "data", "eval"])
def test_the_saving_that_is_told_is_what_taking_the_cause_away_saves(name: str, ranks: int) -> None:
    _, facts = played((name,), ranks)
    _, without = played((), ranks)
    saved = 1 - without["step_time_s"]["mean"] / facts["step_time_s"]["mean"]
    assert facts["recommendation"]["saves"] == pytest.approx(saved, rel=0.2)
    assert (facts["recommendation"]["about"] == "late") == (name in LATE_AT)


@pytest.mark.parametrize("name", ["fwd all", "bwd all", "clip", "opt"])
def test_where_no_replay_can_tell_it_is_said_where_to_look(name: str) -> None:
    _, facts = played((name,), 2)
    advice = facts["recommendation"]
    part = {"fwd all": "forward", "bwd all": "backward", "clip": "before_optimizer", "opt": "optimizer"}[name]
    assert (advice["change"], advice["largest"]["part"]) == (None, part)
    assert advice["largest"]["share"] > 0.7
    assert advice["largest"]["look_at"]


@pytest.mark.parametrize("core_waits", [False, True], ids=["", "core waits known"])
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_of_quiet_runs_on_busy_shared_cores_hardly_any_names_somebody(ranks: int, core_waits: bool) -> None:
    named = 0
    for seed in range(100):
        job = Job(ranks=ranks, cores=2, noise=0.15, contention=1.0, seed=seed, core_waits=core_waits)
        named += bool(told(job.records())["stragglers"]["late"])
    assert named <= 1


@pytest.mark.parametrize("names", [("data late",), ("fwd",), ("bwd",), ("opt late",), ("log",)], ids=" and ".join)
def test_on_busy_shared_cores_a_cause_is_named_all_the_same(names: tuple[str, ...]) -> None:
    late = lateness(names)
    for seed in range(5):
        causes = Causes(**SINGLES[names[0]])
        job = Job(ranks=2, cores=2, noise=0.15, contention=1.0, seed=seed, causes=causes)
        facts = told(job.records())
        assert [each["ranks"] for each in facts["stragglers"]["late"]] == [[rank] for rank in late]


@pytest.mark.parametrize(
    "names", [("fwd", "fwd all"), ("bwd", "clip"), ("opt late", "fwd all"), ("data late", "data")], ids=" and ".join
)
def test_a_rank_that_sleeps_longer_than_it_waits_for_cores_is_named(names: tuple[str, ...]) -> None:
    settings = SINGLES[names[0]] | SINGLES[names[1]]
    for seed in range(5):
        job = Job(ranks=2, cores=2, noise=0.15, contention=1.0, seed=seed, causes=Causes(**settings), core_waits=True)
        facts = told(job.records())
        assert [late["ranks"] for late in facts["stragglers"]["late"]] == [[1]]


def test_a_rank_that_sleeps_is_named_although_its_neighbour_waits_for_cores_more_than_it_does() -> None:
    named = 0
    for seed in range(10):
        job = Job(ranks=2, cores=2, noise=0.15, seed=seed, causes=Causes(BWD=15), core_waits=True, contention=3.0)
        job.busy_ranks = (0,)
        facts = told(job.records())
        assert all(late["ranks"] == [1] for late in facts["stragglers"]["late"])
        named += bool(facts["stragglers"]["late"])
    assert named == 10


def test_waits_for_cores_are_stated_rank_by_rank_and_where_threads_wait_too_they_explain_nothing() -> None:
    job = Job(ranks=2, cores=2, causes=Causes(BWD=5), core_waits=True)
    records = job.records()
    facts = told(records)
    assert [late["ranks"] for late in facts["stragglers"]["late"]] == [[1]]
    assert [row["core_wait_s"] for row in facts["rank_table"]["ranks"]] == [0.0, 0.0]
    for record in records:
        record.head["threads"] = {"torch": 2, "interop": 1}
    facts = told(records)
    assert not facts["stragglers"]["late"]


def test_that_cores_are_shared_is_said_where_it_keeps_somebody_from_being_named() -> None:
    job = Job(ranks=2, cores=2, causes=Causes(BWD=3))
    facts = told(job.records())
    assert not facts["stragglers"]["late"]
    assert facts["stragglers"]["verdict"].startswith("nobody for certain: rank 1 is 3.0 ms slower")
    roomy = replace(job, cores=64)
    facts = told(roomy.records())
    assert [each["ranks"] for each in facts["stragglers"]["late"]] == [[1]]


@pytest.mark.parametrize("skews", [(0.0, 0.0), (0.0, 40.0), (0.0, -3e6)])
def test_skew_between_ranks_changes_no_part(skews: tuple[float, float]) -> None:
    found = [
        merge_records(Job(causes=Causes(FWD_ALL=20, DATA_LATE=30), skews_ms=each).records()).trace.own
        for each in ((0.0, 0.0), skews)
    ]
    for part, column in found[0].items():
        assert column[1:].tolist() == found[1][part][1:].tolist()


def test_nobody_is_late_and_recommended_by_two_different_rules() -> None:
    for seed in range(30):
        job = Job(ranks=2, noise=0.6, seed=seed)
        facts = told(job.records())
        if not facts["stragglers"]["late"]:
            assert facts["recommendation"]["about"] != "late"
