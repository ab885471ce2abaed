"""Behaviours 12 to 25: the response cache and the bit vector."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsim.protocol.cache import ResponseCache
from coordsim.protocol.messages import DType, Op, ReduceOp, Request
from tests.protocol.drive import Ended, Job, caches, fused, settings, tensor
from tests.protocol.profile import profile

SLOW = ["AndReduce", "GatherLists", "BroadcastList"]
INVALIDATING = ["AndReduce", "OrReduce", "GatherLists", "BroadcastList"]


def warm(*tensors: Request, ranks: int = 3, **options: Any) -> Job:
    """A job whose cache knows ``tensors``, bits in that order."""
    job = Job("cached", settings(ranks, **options), through_wire=True)
    job.step(*tensors)
    assert len(job.negotiators[0].cache) == min(len(tensors), job.settings.cache_capacity)
    job.exchanges.clear()
    return job


def named(count: int) -> list[Request]:
    return [tensor(f"t{index}") for index in range(count)]


def test_b12_steady_state_is_one_and_per_cycle_and_nothing_else() -> None:
    job = Job("cached", settings(4))
    job.step(*named(20))
    assert job.exchanges == [SLOW]
    for _ in range(10):
        job.step(*named(20))
        job.cycle()
    assert job.exchanges[1:] == [["AndReduce"]] * 20
    assert [schedule.hits_common for schedule in job.schedules[1:]] == [20, 0] * 10
    assert not any(schedule.slow for schedule in job.schedules[1:])


@pytest.mark.parametrize("seed", range(5))
def test_b13_orders_of_submission_that_differ_leave_results_and_bits_equal(seed: int) -> None:
    source = random.Random(seed)
    straight, shuffled = (Job("cached", settings(4), through_wire=True) for _ in range(2))
    tensors = named(12)
    for step in range(4):
        straight.step(*tensors)
        for rank in shuffled.ranks:
            for each in source.sample(tensors, len(tensors)):
                shuffled.submit(rank, each)
        shuffled.cycle()
        if step:  # the first step's order follows the last rank's; from then on bits decide
            assert not shuffled.schedules[-1].slow
            assert shuffled.schedules[-1].responses == shuffled.schedules[1].responses
    assert {each.name for each in shuffled.ended} == {each.name for each in straight.ended}
    assert all(bits == caches(shuffled)[0] for bits in caches(shuffled))


@pytest.mark.parametrize("late", [1, 2, 7])
def test_b14_a_late_rank_costs_no_message_and_decides_the_cycle(late: int) -> None:
    job = warm(*named(3))
    job.everybody(*named(3), but=[1])
    for _ in range(late):
        assert job.cycle().responses == ()
        assert job.negotiators[0].waiting == ("t0", "t1", "t2")
        assert job.negotiators[1].waiting == ()
    job.submit(1, *reversed(named(3)))
    assert fused(job.cycle().responses) == [("t0", "t1", "t2")]
    assert job.exchanges == [["AndReduce"]] * (late + 1)
    assert job.negotiators[0].waiting == ()


def change(job: Job, request: Request, changed: Request) -> None:
    """All ranks change: one OR pass, one slow cycle, entry replaced, then hits again."""
    schedule = job.step(changed)
    assert job.exchanges == [INVALIDATING]
    assert (schedule.slow, schedule.invalidated, schedule.hits_common) == (True, True, 0)
    assert len(job.negotiators[0].cache) == 2, "replaced, not added"
    assert job.step(changed).hits_common == 1
    assert job.exchanges[1:] == [["AndReduce"]]
    assert job.errors() == {}


def test_b15_a_shape_that_changes_everywhere_is_invalidated_once() -> None:
    job = warm(tensor("x", 4), tensor("y"))
    change(job, tensor("x", 4), tensor("x", 5))
    assert job.schedules[-1].responses[0].sizes == (20,)


@pytest.mark.parametrize("odd_rank", range(3))
def test_b15_a_shape_that_changes_on_one_rank_is_an_error_and_the_entry_is_gone(odd_rank: int) -> None:
    job = warm(tensor("x"), tensor("y"))
    job.everybody(tensor("x"), but=[odd_rank])
    job.submit(odd_rank, tensor("x", 5))
    job.cycle()
    assert job.errors()["x"].startswith("Mismatched tensor shapes")
    assert caches(job) == [[(0, "y")]] * 3
    assert job.step(tensor("x")).slow
    assert not job.step(tensor("x")).slow


def test_b15_a_waiting_hit_joins_the_coordinator_when_a_late_rank_invalidates_it() -> None:
    job = warm(tensor("x"), tensor("y"))
    job.everybody(tensor("x"), but=[2])
    job.cycle()
    job.submit(2, tensor("x", 5))
    job.cycle()
    assert job.exchanges == [["AndReduce"], INVALIDATING]
    assert [each.cycle for each in job.ended if each.error] == [2]


CHANGES: dict[str, dict[str, Any]] = {
    "dtype": {"dtype": DType.FLOAT16}, "prescale": {"prescale": 0.5}, "postscale": {"postscale": 0.5},
    "reduce_op": {"reduce_op": ReduceOp.SUM}, "op": {"op": Op.ALLGATHER}, "device": {"device": 1},
}  # fmt: skip


@pytest.mark.parametrize("field", CHANGES)
def test_b16_every_other_parameter_invalidates_too(field: str) -> None:
    job = warm(tensor("x", device=0), tensor("y"))
    change(job, tensor("x", device=0), replace(tensor("x", device=0), **CHANGES[field]))


@pytest.mark.parametrize("op", [Op.BROADCAST, Op.REDUCESCATTER])
def test_b16_a_cached_name_used_for_an_uncacheable_operation_leaves_the_cache(op: Op) -> None:
    """Horovod's look-up throws for a reduce-scatter."""
    job = warm(tensor("x"), tensor("y"))
    job.step(tensor("x", op=op))
    assert job.exchanges == [INVALIDATING]
    assert caches(job) == [[(0, "y")]] * 3


def test_b16_a_device_that_changes_on_one_rank_is_no_error() -> None:
    job = warm(tensor("x", device=0), tensor("y"))
    job.everybody(tensor("x", device=0), but=[1])
    job.submit(1, tensor("x", device=1))
    job.cycle()
    assert job.exchanges == [INVALIDATING]
    assert job.errors() == {}


@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_b17_capacity_below_tensors_thrashes(capacity: int) -> None:
    job = Job("cached", settings(3, capacity=capacity, threshold=0))
    for _ in range(4):  # one tensor a cycle, in a circle
        for each in named(capacity + 1):
            schedule = job.step(each)
            assert schedule.slow
            assert schedule.hits_common == 0
    assert len(job.negotiators[0].cache) == capacity
    assert job.negotiators[0].cache.active_bits == capacity, "bits are re-used"


@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_b17_capacity_for_every_tensor_always_hits(capacity: int) -> None:
    job = Job("cached", settings(3, capacity=capacity))
    job.step(*named(capacity))
    for _ in range(4):
        for each in named(capacity):
            assert job.step(each).hits_common == 1
    assert job.count("GatherLists") == 1


def test_b17_results_are_the_same_with_a_cache_too_small() -> None:
    small, large = (Job("cached", settings(3, capacity=capacity)) for capacity in (3, 1024))
    for job in (small, large):
        for _ in range(3):
            job.step(*named(7))
    assert sorted(small.ended, key=lambda each: (each.cycle, each.name)) == large.ended


def test_b17_a_pending_hit_that_is_evicted_is_asked_for_in_the_next_cycle() -> None:
    job = warm(tensor("x"), capacity=1)
    job.everybody(tensor("x"), but=[2])
    job.step(tensor("y"))
    assert caches(job) == [[(0, "y")]] * 3
    job.cycle()
    assert job.asked[-1] == [("x",), ("x",), ()]
    job.submit(2, tensor("x"))
    assert fused(job.cycle().responses) == [("x",)]


def test_b18_without_a_cache_every_cycle_gathers_and_broadcasts() -> None:
    """Two list exchanges, each of which sends a length first: Horovod's four collectives."""
    without, cached = Job("coordinator", settings(3)), Job("cached", settings(3))
    for job in (without, cached):
        for _ in range(3):
            job.step(*named(5))
            job.cycle()
    assert without.exchanges == [["GatherLists", "BroadcastList"]] * 6
    assert without.ended == cached.ended
    assert [each.responses for each in without.schedules] == [each.responses for each in cached.schedules]


def test_b18_capacity_0_is_no_cached_job() -> None:
    with pytest.raises(ValueError, match="use 'coordinator'"):
        Job("cached", settings(3, capacity=0))


def test_b19_a_new_name_each_step_is_one_miss_each_and_the_others_stay_hits() -> None:
    gradients = named(4)
    job = warm(*gradients, capacity=5)
    for step in range(10):
        schedule = job.step(*gradients, tensor(f"allreduce.noname.{step}"))
        assert schedule.hits_common == 4
        assert job.asked[-1] == [(f"allreduce.noname.{step}",)] * 3


def test_b20_hits_and_a_new_tensor_go_together_hits_first_in_bit_order() -> None:
    job = warm(*named(3), threshold=0)
    schedule = job.step(tensor("new"), tensor("t2"), tensor("t0"))
    assert fused(schedule.responses) == [("t0",), ("t2",), ("new",)]
    assert (schedule.slow, schedule.hits_common, schedule.invalidated) == (True, 2, False)
    assert [each.cache.least_recent_first() for each in job.negotiators] == [["t1", "t0", "t2", "new"]] * 3


def test_b20_a_hit_waits_while_others_take_the_slow_path() -> None:
    job = warm(*named(2))
    job.everybody(tensor("t0"), but=[0])
    schedule = job.step(tensor("t1"), tensor("new"))
    assert fused(schedule.responses) == [("t1", "new")]
    assert job.asked[-1] == [("new",)] * 3
    assert [each.waiting for each in job.negotiators] == [(), ("t0",), ("t0",)]


@pytest.mark.parametrize("op", [Op.BROADCAST, Op.REDUCESCATTER, Op.BARRIER])
def test_b21_some_operations_are_never_cached(op: Op) -> None:
    job = Job("cached", settings(3), through_wire=True)
    request = tensor("x", op=op, root_rank=0 if op is Op.BROADCAST else -1)
    for _ in range(3):
        job.step(request)
    assert job.exchanges == [SLOW] * 3
    assert caches(job) == [[]] * 3


def test_b21_errors_are_never_cached() -> None:
    job = Job("cached", settings(2))
    for _ in range(2):
        job.submit(0, tensor("x"))
        job.submit(1, tensor("x", 5))
        job.cycle()
    assert caches(job) == [[]] * 2
    assert job.exchanges == [SLOW] * 2


@pytest.mark.parametrize(("entries", "words"), [(0, 1), (61, 1), (62, 2), (125, 2), (126, 3)])
def test_b22_three_status_bits_and_one_per_entry(entries: int, words: int) -> None:
    job = Job("cached", settings(2))
    job.step(*named(entries))
    assert job.step(*named(entries)).hits_common == entries
    assert job.vector_words == words


def test_b22_the_default_cache_takes_17_words_at_most() -> None:
    cache = ResponseCache(1024)
    for each in named(1500):
        cache.put(each)
    assert cache.words == 17


@pytest.mark.parametrize("leaver", range(3))
def test_b23_a_shutdown_travels_in_an_idle_fast_cycle(leaver: int) -> None:
    job = warm(*named(2))
    schedule = job.cycle(shutdown=[leaver])
    assert (schedule.shutdown, schedule.slow, schedule.responses) == (True, False, ())
    assert job.exchanges == [["AndReduce"]]


REQUESTS = st.builds(
    Request, name=st.just(""), dtype=st.sampled_from([DType.FLOAT32, DType.FLOAT16]),
    shape=st.tuples(st.integers(0, 8)), op=st.sampled_from([Op.ALLREDUCE, Op.ALLREDUCE, Op.ALLGATHER]),
)  # fmt: skip


@given(st.lists(REQUESTS, max_size=10), st.integers(0, 80), st.booleans(), st.data())
@profile(100)
def test_b24_the_fast_path_fuses_as_the_coordinator_would(
    nameless: Sequence[Request], threshold: int, strict: bool, data: st.DataObject
) -> None:
    """The same hits once in a fast cycle and once in one that a barrier makes slow."""
    tensors = [replace(each, name=f"t{index}") for index, each in enumerate(nameless)]
    names = data.draw(st.permutations([each.name for each in tensors]))
    cut = data.draw(st.integers(0, len(names)))
    groups = [part for part in (tuple(names[:cut]), tuple(names[cut : cut + 3])) if part]
    job = Job("cached", settings(2, threshold=threshold, groups=groups, strict=strict))
    job.step(*tensors)
    fast = job.step(*tensors)
    assert (fast.slow, fast.hits_common) == (False, len(tensors))
    slow = job.step(*tensors, Request("barrier", Op.BARRIER))
    assert (slow.slow, slow.hits_common) == (True, len(tensors))
    assert slow.responses[:-1] == fast.responses
    assert slow.responses[-1].names == ("barrier",)


def test_b25_after_an_invalidation_bits_are_renumbered_least_recent_first() -> None:
    job = warm(*named(4), threshold=0)
    job.step(tensor("t0"))  # now most recently used
    schedule = job.step(tensor("t1", 9), tensor("t3"))
    assert schedule.invalidated
    assert fused(schedule.responses) == [("t3",), ("t1",)]
    assert caches(job) == [[(0, "t2"), (1, "t0"), (2, "t3"), (3, "t1")]] * 3
    schedule = job.step(*named(1), tensor("t1", 9), *named(4)[2:])
    assert fused(schedule.responses) == [("t2",), ("t0",), ("t3",), ("t1",)]
    assert (schedule.slow, schedule.hits_common) == (False, 4)


def test_b25_several_bits_invalid_on_different_ranks_leave_in_one_or_pass() -> None:
    job = warm(*named(70), threshold=0)
    job.submit(0, tensor("t69", 9))
    job.submit(1, tensor("t5", 9))
    job.cycle()
    assert job.exchanges == [INVALIDATING]
    assert [len(each.cache) for each in job.negotiators] == [68] * 3
    assert caches(job)[0][-1] == (67, "t68")
    job.everybody(tensor("t69", 9), but=[0])
    job.everybody(tensor("t5", 9), but=[1])
    job.cycle()
    assert {each.name for each in job.ended if each.cycle == 2} == {"t5", "t69"}
    assert Ended(2, "t5") in job.ended
    job.watch.job_done()
