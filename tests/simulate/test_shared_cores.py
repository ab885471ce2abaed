"""Ranks that share cores: who stretches whom, and what a collective takes by its algorithm. Times are ns, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from coordsim.errors import InputError
from coordsim.simulate.shared_cores import (
    Collective,
    Dependency,
    Host,
    Program,
    Segment,
    SegmentKind,
    SharedProblem,
    SharedRun,
    Stage,
    run,
)

COMPUTE, SLEEP = Segment(SegmentKind.COMPUTE), Segment(SegmentKind.SLEEP)
NONE, LEFT, ALL, ROOT = Dependency.NONE, Dependency.LEFT, Dependency.ALL, Dependency.ROOT


def submit(collective: int = 0) -> Segment:
    return Segment(SegmentKind.SUBMIT, collective)


def wait(collective: int = 0) -> Segment:
    return Segment(SegmentKind.WAIT, collective)


def ring(ranks: int, stage_ns: int, latency_ns: int = 0) -> Collective:
    return Collective((Stage(stage_ns, stage_ns, LEFT, LEFT, latency_ns),) * (2 * (ranks - 1)))


def simulated(
    segments, times, *, cores: int = 64, collectives=(), workers: int = 1, slice_ns: int = 1_000, hosts=None,
) -> SharedRun:  # fmt: skip
    """``times``: [rank][segment], the same in each of three steps."""
    one = np.array(times, dtype=np.int64)
    program = Program(tuple(segments), np.repeat(one[:, None, :], 3, axis=1))
    placed = hosts or (Host(cores, len(times)),)
    return run(SharedProblem(tuple(placed), program, tuple(collectives), workers, slice_ns))


def steps_ns(found: SharedRun, rank: int = 0) -> list[int]:
    return np.diff(found.end_ns[rank], prepend=0).tolist()


def test_a_rank_alone_takes_the_sum_of_its_segments():
    assert steps_ns(simulated((COMPUTE, SLEEP), [[700, 300]])) == [1_000] * 3


def test_ranks_with_a_core_each_do_not_stretch_each_other():
    found = simulated((COMPUTE,), [[5_000]] * 4, cores=4)
    assert [steps_ns(found, rank) for rank in range(4)] == [[5_000] * 3] * 4


def test_four_that_compute_on_two_cores_take_twice_as_long():
    found = simulated((COMPUTE,), [[10_000]] * 4, cores=2)
    assert found.end_ns[:, -1].max() == 60_000
    assert found.busy_ns.tolist() == [120_000]


def test_sleeping_takes_no_core():
    assert steps_ns(simulated((SLEEP,), [[10_000]] * 8, cores=2)) == [10_000] * 3


def test_who_slept_goes_first_when_another_has_used_its_slice():
    found = simulated((SLEEP, COMPUTE), [[0, 100_000], [500, 1_000]], cores=1)
    assert found.begins_ns[1, 0, 2] <= 500 + 2 * 1_000


def test_ranks_of_another_host_do_not_matter():
    crowded = simulated((COMPUTE,), [[10_000]] * 5, hosts=(Host(1, 1), Host(2, 4)))
    assert steps_ns(crowded, 0) == [10_000] * 3
    assert crowded.end_ns[4, -1] == 60_000


def test_a_ring_takes_its_stages_and_latencies_on_cores_of_their_own():
    found = simulated((submit(), wait()), [[0, 0]] * 4, collectives=[ring(4, 100, 7)])
    assert steps_ns(found) == [6 * (100 + 7)] * 3


def test_a_latency_before_anything_else_is_waited_for_once():
    late = Collective((Stage(10, 10, NONE, NONE, 500), *ring(2, 100).stages))
    assert steps_ns(simulated((submit(), wait()), [[0, 0]] * 2, collectives=[late])) == [500 + 10 + 2 * 100] * 3


def test_a_ring_of_more_ranks_than_cores_shares_them():
    found = simulated((submit(), wait()), [[0, 0]] * 8, cores=2, collectives=[ring(8, 100)])
    assert steps_ns(found, 0)[1] >= 14 * 100 * 8 / 2
    assert found.busy_ns.tolist() == [3 * 8 * 14 * 100]


def test_a_collective_begins_with_its_last_rank():
    late = simulated((COMPUTE, submit(), wait()), [[1_000, 0, 0], [5_000, 0, 0]], collectives=[ring(2, 100)])
    assert steps_ns(late, 0)[0] >= 5_000 + 100
    assert late.took_ns[0, 0, 2] >= 4_000


def test_rank_0_of_a_star_serves_one_after_the_other():
    def star(ranks: int) -> Collective:
        return Collective((
            Stage(0, 10, NONE, NONE), Stage(2 * (ranks - 1) * 10, 0, ALL, NONE), Stage(0, 10, NONE, ROOT),
        ))  # fmt: skip

    took = {
        ranks: steps_ns(simulated((submit(), wait()), [[0, 0]] * ranks, collectives=[star(ranks)]), 1)[0]
        for ranks in (2, 4, 8)
    }
    assert took == {2: 10 + 20 + 10, 4: 10 + 60 + 10, 8: 10 + 140 + 10}


@pytest.mark.parametrize(("workers", "took"), [(1, 400), (2, 200)])
def test_as_many_collectives_run_at_once_as_there_are_threads_for_them(workers, took):
    segments = (submit(0), submit(1), wait(0), wait(1))
    found = simulated(segments, [[0] * 4] * 2, collectives=[ring(2, 100), ring(2, 100)], workers=workers)
    assert steps_ns(found)[0] == took


def test_a_collective_runs_beside_the_work_that_follows_it():
    segments = (submit(), COMPUTE, wait())
    assert steps_ns(simulated(segments, [[0, 1_000, 0]] * 2, collectives=[ring(2, 100)])) == [1_000] * 3


def test_hosts_that_hold_other_ranks_are_refused():
    with pytest.raises(InputError, match="hold 3 ranks"):
        simulated((COMPUTE,), [[1]] * 2, hosts=(Host(2, 3),))


def test_a_wait_for_what_is_never_handed_over_is_an_error_and_no_hang():
    with pytest.raises(InputError, match="nobody can go on"):
        simulated((wait(),), [[0]] * 2, collectives=[ring(2, 100)])
