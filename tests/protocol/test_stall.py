"""Behaviour 36: who keeps whom waiting, by clocks that the driver passes in."""

from __future__ import annotations

import pytest

from coordsim.protocol.messages import Op, Ranges
from coordsim.protocol.ranges import ranges, size, spelled, united
from coordsim.protocol.stall import StallClock, StallLimits, StallReport, stall_report
from tests.protocol.drive import KINDS, UNMERGED, Job, caches, settings, tensor

every_kind = pytest.mark.parametrize("kind", KINDS)
LIMITS = StallLimits(warn_after_ns=60)


def run_to(job: Job, start_ns: int, end_ns: int, period_ns: int = 1) -> None:
    for now_ns in range(start_ns, end_ns, period_ns):
        job.turn(now_ns)


def delay(job: Job) -> int:
    """A merged tree asks its nodes first."""
    return job.kind == "hierarchical" and job.settings.merge


@every_kind
def test_b36_a_warning_names_the_missing_ranks_and_their_tensors_only(kind: str) -> None:
    job = Job(kind, settings(7), through_wire=True, limits=LIMITS)  # as a tree: 0 -> 1 (3, 4), 2 (5, 6)
    job.everybody(tensor("x"), tensor("y"), but=[1, 4, 5])
    job.submit(5, tensor("y"))
    run_to(job, 0, 67 + delay(job))
    assert job.reports == [], "60 units and a tenth, so that what stalls together is told together"
    job.turn(67 + delay(job))
    (report,) = job.reports
    assert report.by_rank() == {1: ["x", "y"], 4: ["x", "y"], 5: ["x"]}
    assert not report.fatal
    assert report.text() == (
        "stall: 2 tensors waited for 0.0 s; not asked for by:\n  ranks 1,4: y\n  ranks 1,4-5: x"
    )


@every_kind
def test_b36_a_stall_is_told_once_not_every_cycle(kind: str) -> None:
    """Until it is over; then the same name may stall again."""
    job = Job(kind, settings(3), limits=LIMITS)
    for round_ in range(2):
        start_ns = 1000 * round_
        job.everybody(tensor("x"), but=[2])
        run_to(job, start_ns, start_ns + 900)
        assert [each.by_rank() for each in job.reports] == [{2: ["x"]}] * (round_ + 1)
        job.submit(2, tensor("x"))
        assert job.turn(start_ns + 900).responses[0].names == ("x",)


@every_kind
def test_b36_what_stalls_later_is_told_on_its_own(kind: str) -> None:
    job = Job(kind, settings(2), limits=LIMITS)
    job.submit(0, tensor("x"))
    run_to(job, 0, 30)
    job.submit(0, tensor("y"))
    run_to(job, 30, 200)
    assert [each.by_rank() for each in job.reports] == [{1: ["x"]}, {1: ["y"]}]


@every_kind
def test_b36_ranks_that_have_joined_are_not_missing(kind: str) -> None:
    job = Job(kind, settings(5), limits=LIMITS)
    job.join(1, 4)
    job.everybody(tensor("x"), but=[1, 3, 4])
    run_to(job, 0, 100)
    assert [each.by_rank() for each in job.reports] == [{3: ["x"]}]


@every_kind
def test_b36_a_long_stall_ends_the_job_after_it_was_told(kind: str) -> None:
    job = Job(kind, settings(4), through_wire=True, limits=StallLimits(60, 100))
    job.everybody(tensor("x"), but=[3])
    run_to(job, 0, 102 + delay(job))  # the coordinator watches from the cycle after it was asked, which is 1
    assert not any(each.shutdown for each in job.schedules)
    assert [each.fatal for each in job.reports] == [False, True]
    job.turn(102 + delay(job))
    assert len(job.reports) == 2
    warned, fatal = job.reports
    assert fatal.by_rank() == warned.by_rank() == {3: ["x"]}
    assert fatal.text().startswith("stall: 1 tensor waited for 0.0 s; shutting down; not asked for by:\n  rank 3: x")
    assert job.schedules[-1].shutdown
    assert job.drained == [("x",)] * 3 + [()]
    job.watch.job_done()


@every_kind
def test_b36_who_comes_at_the_last_moment_is_in_time(kind: str) -> None:
    job = Job(kind, settings(4), limits=StallLimits(60, 100))
    job.everybody(tensor("x"), but=[3])
    run_to(job, 0, 101)
    job.submit(3, tensor("x"))
    run_to(job, 101, 150)
    assert [each.fatal for each in job.reports] == [False]
    assert not any(each.shutdown for each in job.schedules)


def test_b36_a_rank_may_be_more_patient_than_others_but_the_coordinator_decides() -> None:
    job = Job("cached", settings(2), limits=StallLimits(0))
    job.submit(1, tensor("x"))
    run_to(job, 0, 1000, 100)
    assert job.reports == []


def test_b36_a_cached_tensor_that_stalls_is_invalidated_reported_and_cached_again() -> None:
    job = Job("cached", settings(3), through_wire=True, limits=LIMITS)
    job.step(tensor("x"), tensor("y"))
    job.everybody(tensor("x"), but=[2])
    run_to(job, 0, 67)
    assert {each.slow for each in job.schedules[1:]} == {False}
    assert job.negotiators[0].missing() == {}, "a hit that waits is invisible to the coordinator"

    schedule = job.turn(67)
    assert (schedule.slow, schedule.invalidated, schedule.responses) == (True, True, ())
    assert job.exchanges[-1] == ["AndReduce", "OrReduce", "GatherLists", "BroadcastList"]
    assert job.negotiators[0].missing() == {"x": (2,)}
    assert caches(job) == [[(0, "y")]] * 3
    run_to(job, 68, 68 + 66)
    assert job.reports == [], "the coordinator counts from when it learns of it"
    run_to(job, 134, 200)
    assert [each.by_rank() for each in job.reports] == [{2: ["x"]}]
    assert {each.slow for each in job.schedules[-100:]} == {False}, "waiting costs nothing"

    job.submit(2, tensor("x"))
    assert job.turn(200).responses[0].names == ("x",)
    assert caches(job) == [[(0, "y"), (1, "x")]] * 3
    assert job.step(tensor("x")).hits_common == 1
    job.watch.job_done()


def test_b36_tensors_that_stall_together_cost_one_slow_cycle() -> None:
    """They were submitted a few cycles apart; Horovod checks once a period, with the same effect."""
    job = Job("cached", settings(2), limits=LIMITS)
    names = [f"t{index}" for index in range(5)]
    job.step(*(tensor(name) for name in names))
    for now_ns, name in enumerate(names):
        job.submit(0, tensor(name))
        job.turn(now_ns)
    run_to(job, 5, 300)
    assert sum(each.invalidated for each in job.schedules) == 1
    assert [each.by_rank() for each in job.reports] == [{1: names}]


def test_b36_one_ranks_stall_takes_the_others_along() -> None:
    """Rank 1 alone has run out of patience; rank 0's hit is erased under it and asked for in the same cycle."""
    job = Job("cached", settings(3))
    job.step(tensor("x"))
    job.everybody(tensor("x"), but=[2])
    job.cycle()
    job.cycle(stalled={1: ["x"]})
    assert job.asked[-1] == [("x",), ("x",), ()]
    assert job.negotiators[0].missing() == {"x": (2,)}


def test_b36_a_rank_that_recovers_in_the_very_cycle_of_the_invalidation() -> None:
    job = Job("cached", settings(3))
    job.step(tensor("x"))
    job.everybody(tensor("x"), but=[2])
    job.cycle()
    job.submit(2, tensor("x"))
    assert job.cycle(stalled={0: ["x"]}).responses[0].names == ("x",)
    assert job.step(tensor("x")).hits_common == 1


def test_b36_names_that_do_not_wait_are_no_stalls() -> None:
    job = Job("cached", settings(2))
    job.step(tensor("x"))
    assert job.cycle(stalled={0: ["x", "never heard of"]}).slow is False


def test_b36_a_trees_nodes_know_the_subtree_that_is_missing() -> None:
    job = Job("hierarchical", settings(7))  # 0 -> 1 (3, 4), 2 (5, 6)
    job.everybody(tensor("x"), but=[4])
    job.cycle()
    assert [each.missing() for each in job.negotiators[:2]] == [{"x": (1,)}, {"x": (4,)}]
    assert [each.pending for each in job.negotiators] == [("x",)] + [()] * 6, "the root alone watches"


@pytest.mark.parametrize("kind", ["hierarchical", UNMERGED])
def test_b36_a_tree_names_single_ranks_however_deep(kind: str) -> None:
    """A subtree of which nobody has asked, one of which two ranks have, one that is complete."""
    job = Job(kind, settings(40, radix=3), through_wire=True, limits=LIMITS)
    absent = {2, 7, 8, 9, *range(22, 31), 39}
    job.everybody(tensor("x"), tensor("fine"), but=sorted(absent))
    for rank in sorted(absent):
        job.submit(rank, tensor("fine"))
    run_to(job, 0, 100)
    (report,) = job.reports
    assert set(report.by_rank()) == absent
    assert "ranks 2,7-9,22-30,39: x" in report.text()
    job.join(*sorted(absent - {8}))
    run_to(job, 100, 102)
    job.submit(8, tensor("x"))
    assert job.turn(102).responses[0].names == ("x",)


def test_b36_a_barrier_stalls_like_anything_else() -> None:
    job = Job("cached", settings(3), limits=LIMITS)
    job.everybody(tensor("b", op=Op.BARRIER, shape=()), but=[0])
    run_to(job, 0, 100)
    assert [each.by_rank() for each in job.reports] == [{0: ["b"]}]


def test_a_clock_starts_again_when_a_name_waits_again() -> None:
    clock = StallClock(StallLimits(10))
    clock.due(["x"], 0)
    clock.due([], 5)
    assert clock.due(["x"], 12) == frozenset()
    assert clock.waited_ns(["x", "unknown"], 22) == 10
    assert clock.due(["x"], 23) == {"x"}
    assert clock.due(["x"], 99) == frozenset(), "told before"


@pytest.mark.parametrize("limits", [(-1, 0), (10, -1), (10, 9), (0, 5)])
def test_limits_that_make_no_sense_are_refused(limits: tuple[int, int]) -> None:
    """Horovod ignores a shutdown time below the warning time, with a warning."""
    with pytest.raises(ValueError, match="stall"):
        StallLimits(*limits)


def test_a_report_is_short_whatever_stalls() -> None:
    """Every other rank of 27,600, and 161 tensors; then 161 tensors, each by ranks of its own."""
    every_other = ranges(range(0, 27_600, 2))
    names = [f"layer{index}.weight" for index in range(161)]
    text = stall_report(dict.fromkeys(names, every_other), 61_250_000_000).text()
    assert text == (
        "stall: 161 tensors waited for 61.2 s; not asked for by:\n"
        "  ranks 0,2,4,6,8,10,12,14,16,18,20,22 and 13,788 more: layer0.weight, layer1.weight, layer2.weight, "
        "layer3.weight, layer4.weight, layer5.weight, ... (161 in all)"
    )
    scattered: dict[str, Ranges] = {name: ((rank, rank + 3),) for rank, name in enumerate(names)}
    lines = stall_report(scattered, 0).text().splitlines()
    assert len(lines) == 14
    assert lines[1] == "  ranks 0-3: layer0.weight"
    assert lines[-1] == "  and 149 more tensors by other sets of ranks"


def test_nobody_missing_is_no_report() -> None:
    assert stall_report({}, 5) is None
    assert stall_report({"x": ()}, 5) is None
    both = StallReport(5, ((((2, 3),), ("b", "a")), (((3, 3),), ("c",))))
    assert both.by_rank() == {2: ["a", "b"], 3: ["a", "b", "c"]}


def test_ranks_as_ranges() -> None:
    assert ranges([]) == ()
    assert ranges([12, 3, 4, 5, 7, 6]) == ((3, 7), (12, 12))
    assert united([(5, 9), (0, 1), (2, 2), (8, 20), (6, 7)]) == ((0, 2), (5, 20))
    assert size(((0, 2), (5, 20))) == 19
    assert [spelled(ranges(each)) for each in ([5], [3, 4, 12])] == ["rank 5", "ranks 3-4,12"]
    assert spelled(ranges([0, 2, 4, 5]), limit=2) == "ranks 0,2 and 2 more"
