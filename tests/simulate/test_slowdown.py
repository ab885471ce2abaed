"""Backward under a running collective (docs/semantics.md 2.7): hand arithmetic, and a formula over the whole trace."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from coordsim.errors import Refused
from coordsim.record.breakdown import breakdown, step_times
from coordsim.record.trace import Trace, difference
from coordsim.scenario.model import Noise, Scenario, Spread
from coordsim.simulate import event, vector
from coordsim.simulate.engine import simulate
from coordsim.simulate.problem import Problem
from tests.scenarios import (
    CLUSTER,
    DATA,
    PLANE,
    random_scenario,
    scenario,
    shuffled_scenario,
    tensors,
    two_clock_scenario,
    workload,
)

FORWARD_NS, FIRST_NS = 2_000_000, 500_000


def slowed(described: Scenario, ppm: int) -> Scenario:
    data = replace(described.cluster.data, backward_slowdown_ppm=ppm)
    return replace(described, cluster=replace(described.cluster, data=data))


def two_gradients(second_ns: int, ppm: int) -> tuple[Trace, int]:
    """Two ranks, ``ideal``, no noise: the first collective begins with the first gradient. The trace, and how long
    that collective holds the stream."""
    job = workload(tensors=tensors([FIRST_NS, second_ns], [3_000_000, 1000]))
    plane = replace(PLANE, name="ideal")
    described = scenario(2, steps=1, workload=job, control_plane=plane, noise=Noise())
    trace = event.run(Problem(slowed(described, ppm)))
    return trace, int((trace.responses["end_ns"] - trace.responses["begin_ns"])[0])


def test_all_of_it_under_a_collective() -> None:
    """1,001 ns at 50 % more: 1,501.5 ns, so the first whole ns is the 1,502nd."""
    trace, held_ns = two_gradients(1001, 500_000)
    assert held_ns > 2000
    assert trace.steps["ready_median_ns"][0] == FORWARD_NS + FIRST_NS + 1502


def test_part_of_it_under_a_collective() -> None:
    """A collective of g ns does g / 1.25 ns of backward; what is left goes at full pace."""
    trace, held_ns = two_gradients(3_000_000, 250_000)
    assert held_ns < 3_000_000
    late_ns = -(-held_ns * 1 // 5)  # g - g / 1.25, rounded up
    assert trace.steps["ready_median_ns"][0] == FORWARD_NS + FIRST_NS + 3_000_000 + late_ns
    plain, _ = two_gradients(3_000_000, 0)
    assert trace.steps["end_ns"][0] - plain.steps["end_ns"][0] == late_ns


def ready_by_formula(problem: Problem, trace: Trace, step: int) -> np.ndarray:
    """Last gradient of each rank after the step's start: the first whole ns t at which
    t - b - (s / (1 + s)) * held(b, t) covers the rank's backward; by bisection over exact fractions."""
    share = Fraction(problem.scenario.cluster.data.backward_slowdown_ppm, 1_000_000)
    begins, ends = trace.responses["begin_ns"].tolist(), trace.responses["end_ns"].tolist()
    forward = problem.noise.forward_ns(step, problem.scenario.workload.forward_ns)
    exist = problem.noise.ready_ns(
        step, problem.scenario.workload.forward_ns, problem.backward_ns, 0, problem.ranks
    )[:, -1]
    start, found = int(trace.steps["start_ns"][step]), []
    for rank in range(problem.ranks):
        first, work = start + int(forward[rank]), int(exist[rank] - forward[rank])

        def done(at: int, first: int = first, work: int = work) -> bool:
            held = sum(max(min(end, at) - max(begin, first), 0) for begin, end in zip(begins, ends, strict=True))
            return at - first - share / (1 + share) * held >= work

        low, high = first, first + 2 * work + 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if done(middle) else (middle + 1, high)
        found.append(low - start)
    return np.array(found)


CASES = [two_clock_scenario(seed) for seed in range(1, 41, 2)]
CASES += [shuffled_scenario(seed) for seed in range(40)] + [random_scenario(seed) for seed in range(20)]
CASES = [each for each in CASES if 1 < each.ranks <= 9 and len(each.workload.tensors) <= 13]


@pytest.mark.parametrize(("ppm", "first"), [(1, 0), (150_000, 1), (1_000_000, 2)])
def test_readiness_is_what_the_responses_leave(ppm: int, first: int) -> None:
    moved = 0
    for described in CASES[first::4]:
        problem = Problem(slowed(described, ppm))
        trace = event.run(problem)
        for step in range(described.steps + 1):
            expected = ready_by_formula(problem, trace, step)
            assert trace.steps["ready_last_ns"][step] - trace.steps["start_ns"][step] == expected.max()
            assert trace.steps["ready_last_rank"][step] == expected.argmax()
            assert trace.steps["ready_median_ns"][step] == np.sort(expected)[(expected.size - 1) // 2]
        parts = breakdown(trace)
        assert min(int(part.min()) for part in parts.values()) >= 0
        np.testing.assert_array_equal(sum(parts.values()), step_times(trace))
        moved += difference(trace, event.run(Problem(described))) is not None
    assert moved >= 3, "collectives must overlap backward in some of them"


@pytest.mark.parametrize("wait", ["none", "host", "stream"])
def test_hooks_keep_their_pace_where_somebody_waits(wait: str) -> None:
    """One collective a tensor, half of backward under collectives: with two clocks only existence is late."""
    plane = replace(PLANE, name="coordinator", fusion_threshold_bytes=0, wait_for_data=wait)
    job = workload(tensors=tensors([500_000] * 8, [2_000_000] * 8))
    described = scenario(2, steps=1, workload=job, control_plane=plane, noise=Noise())
    plain, slow = (event.run(Problem(each)) for each in (described, slowed(described, 1_000_000)))
    late = int(slow.steps["ready_last_ns"][0] - plain.steps["ready_last_ns"][0])
    assert late > 100_000
    asked = [
        trace.cycles["enter_last_ns"][(trace.cycles["requests"] > 0) & (trace.cycles["step"] == 0)].tolist()
        for trace in (plain, slow)
    ]
    assert (asked[0] == asked[1]) == (wait == "stream")  # host: the loop stands still meanwhile


def test_one_rank_has_no_collectives() -> None:
    alone = scenario(1)
    assert difference(event.run(Problem(slowed(alone, 500_000))), vector.run(Problem(slowed(alone, 500_000)))) is None
    assert difference(event.run(Problem(slowed(alone, 500_000))), event.run(Problem(alone))) is None


def test_the_vector_engine_refuses_it_by_name_and_auto_does_not() -> None:
    described = slowed(scenario(3, 1), 100_000)
    with pytest.raises(Refused, match=r"cluster\.data\.backward_slowdown: .*delay it; the event engine can"):
        simulate(described, "vector")
    with pytest.raises(Refused, match="backward_slowdown"):
        vector.run(Problem(described))
    assert simulate(described).engine == "event"
    assert simulate(replace(described, cluster=replace(CLUSTER, data=DATA))).engine == "vector"


def test_before_r_control_planes_now_differ() -> None:
    """More of backward under collectives, a longer backward: with one bucket less than with one for each tensor."""
    job = workload(tensors=tensors([500_000] * 8, [2_000_000] * 8))
    noise = Noise(tensor=Spread("normal", 50_000))
    ready = set()
    for threshold in (0, 128 << 20):
        plane = replace(PLANE, fusion_threshold_bytes=threshold)
        described = scenario(4, steps=1, workload=job, control_plane=plane, noise=noise)
        ready.add(int(event.run(Problem(slowed(described, 300_000))).steps["ready_median_ns"][1]))
    assert len(ready) == 2
