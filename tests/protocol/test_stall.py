"""Behaviour 36: who is missing, by a clock that the driver passes in."""

from __future__ import annotations

from coordsim.protocol.stall import StallClock, stall_report
from tests.protocol.drive import Job, caches, settings, tensor


def test_b36_a_warning_names_the_missing_ranks_only() -> None:
    job = Job("coordinator", settings(4))
    clock = StallClock(60)
    job.everybody(tensor("x"), tensor("y"), but=[1, 3])
    job.submit(3, tensor("y"))
    job.cycle()
    table = job.negotiators[0]
    assert clock.observe(table.missing(), 0) == frozenset()
    assert clock.observe(table.missing(), 59) == frozenset()
    stalled = clock.observe(table.missing(), 60)
    assert stalled == {"x", "y"}
    assert stall_report(stalled, table.missing()) == {1: ["x", "y"], 3: ["x"]}
    job.submit(1, tensor("x"), tensor("y"))
    job.cycle()
    assert stall_report(clock.observe(table.missing(), 70), table.missing()) == {3: ["x"]}
    assert all(each.missing() == {} for each in job.negotiators[1:]), "only the coordinator knows"


def test_b36_a_cached_tensor_that_stalls_is_invalidated_reported_and_cached_again() -> None:
    job = Job("cached", settings(3), through_wire=True)
    clocks = [StallClock(60) for _ in job.ranks]
    job.step(tensor("x"), tensor("y"))
    job.everybody(tensor("x"), but=[2])
    for now in (0, 30, 60):
        assert job.cycle().slow is False
        late = [clock.observe(each.waiting, now) for clock, each in zip(clocks, job.negotiators, strict=True)]
    assert late == [{"x"}, {"x"}, frozenset()]
    assert job.negotiators[0].missing() == {}, "a hit that waits is invisible to the coordinator"

    schedule = job.cycle(stalled=dict(enumerate(late)))
    assert (schedule.slow, schedule.invalidated, schedule.responses) == (True, True, ())
    assert job.exchanges[-1] == ["AndReduce", "OrReduce", "GatherLists", "BroadcastList"]
    assert job.negotiators[0].missing() == {"x": (2,)}
    assert stall_report(frozenset({"x"}), job.negotiators[0].missing()) == {2: ["x"]}
    assert caches(job) == [[(0, "y")]] * 3
    assert clocks[0].observe(job.negotiators[0].waiting, 61) == frozenset()

    job.submit(2, tensor("x"))
    assert job.cycle().responses[0].names == ("x",)
    assert caches(job) == [[(0, "y"), (1, "x")]] * 3
    assert job.step(tensor("x")).hits_common == 1
    job.watch.job_done()


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


def test_b36_a_tree_reports_the_subtree_that_is_missing() -> None:
    job = Job("hierarchical", settings(7))  # 0 -> 1 (3, 4), 2 (5, 6)
    job.everybody(tensor("x"), but=[4])
    job.cycle()
    assert [each.missing() for each in job.negotiators[:2]] == [{"x": (1,)}, {"x": (4,)}]


def test_a_clock_starts_again_when_a_name_waits_again() -> None:
    clock = StallClock(10)
    clock.observe(["x"], 0)
    clock.observe([], 5)
    assert clock.observe(["x"], 12) == frozenset()
    assert clock.observe(["x"], 22) == {"x"}


def test_a_report_lists_ranks_and_names_in_order() -> None:
    missing = {"b": (5, 2), "a": (2,), "fine": (9,)}
    assert list(stall_report(frozenset("ab"), missing).items()) == [(2, ["a", "b"]), (5, ["b"])]
    assert stall_report(frozenset({"gone"}), missing) == {}
