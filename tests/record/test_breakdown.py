"""The ten parts, computed by hand on hand-written traces (docs/semantics.md 7), and what must hold on any trace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coordsim.record.breakdown import CONTROL_PARTS, PARTS, breakdown, step_times
from coordsim.record.trace import Kind, Trace, TraceWriter
from coordsim.scenario.model import CONTROL_PLANES, Noise, Scenario, Spread
from coordsim.simulate import vector
from coordsim.simulate.problem import Problem
from tests.record.hand_made import response, row
from tests.scenarios import PLANE, random_scenario, scenario

HEAD = ("input_stall", "forward", "backward", "straggler_wait")


def split(trace: Trace, step: int = 0) -> dict[str, int]:
    """A step's parts that are not 0; checks that all ten sum to its time."""
    parts = breakdown(trace)
    assert tuple(parts) == PARTS
    np.testing.assert_array_equal(sum(parts.values()), step_times(trace))
    return {name: int(part[step]) for name, part in parts.items() if part[step]}


def after_r(collective: int = 0, copy: int = 0, work: int = 0, exchange: int = 0, wait: int = 0) -> dict[str, int]:
    parts = {
        "exposed_collective": collective, "fusion_copy": copy, "control_work": work, "control_exchange": exchange,
        "cycle_wait": wait,
    }  # fmt: skip
    return {name: part for name, part in parts.items() if part}


def tail(trace: Trace, step: int = 0) -> dict[str, int]:
    return {name: part for name, part in split(trace, step).items() if name not in (*HEAD, "optimizer")}


def finish(writer: TraceWriter, ready_ns: int, end_ns: int, blocking: bool = False) -> Trace:
    """One step from 0 whose last gradient comes at ``ready_ns``; no optimizer."""
    writer.step(0, 0, 0, 0, ready_ns, 0, end_ns, end_ns)
    return writer.finish(blocking)


def two_responses(launch: int = 410, collective_end: int = 390, ready_ns: int = 330) -> Trace:
    """Cycle 0 [300, 342] launches at 340 what ends at ``collective_end``; cycle 1 enters at 380 and launches."""
    writer = TraceWriter()
    writer.cycle(row(300))
    writer.cycle(row(380, 342, 320))
    response(writer, 0, 340, 320, 340, 5, collective_end - 350, 5)
    begin = max(launch, collective_end)
    end = response(writer, 1, launch, 395, begin, 3, 20, 2)
    return finish(writer, ready_ns, end)


def test_all_ten_parts() -> None:
    writer = TraceWriter()
    writer.cycle(row(300))
    writer.cycle(row(380, 342, 320))
    response(writer, 0, 340, 320, 340, 5, 40, 5)  # ends at 390, before 410: the stream pauses
    end = response(writer, 1, 410, 395, 410, 3, 20, 2)
    assert end == 435
    writer.step(0, 100, 50, 200, 330, 2, 435, 450)
    assert split(writer.finish()) == {
        "input_stall": 100,
        "forward": 50,
        "backward": 150,
        "straggler_wait": 30,  # 330 - 100 - 200
        # back from 435: response 1 [410, 435]; cycle 1's control phase [380, 410] with 410 - 395 work;
        # the wait [342, 380]; cycle 0's control phase [300, 342] with 342 - 320 work, cut at R = 330
        "exposed_collective": 20,
        "fusion_copy": 5,
        "control_work": 15 + 22 * 12 // 42,
        "control_exchange": 15 + 12 - 22 * 12 // 42,
        "cycle_wait": 38,
        "optimizer": 15,
    }


def test_a_stream_that_does_not_pause_hides_the_control_plane() -> None:
    """e_0 = 411 > q_1 = 410: straight on to response 0; only cycle 0's phase [300, 340] is left, cut at 330."""
    assert tail(two_responses(410, 411)) == {
        "exposed_collective": 20 + 61, "fusion_copy": 5 + 10, "control_work": 20 * 10 // 40, "control_exchange": 5,
    }  # fmt: skip


def test_a_tie_goes_to_control() -> None:
    """e_0 = q_1 = 410: what response 0 did is not looked at; cycle 1 and the wait before it are."""
    assert tail(two_responses(410, 410)) == {
        "exposed_collective": 20, "fusion_copy": 5,
        "control_work": 15 + 6, "control_exchange": 15 + 6, "cycle_wait": 38,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ready_ns", "expected"),
    [
        (385, after_r(collective=20, copy=5, work=12, exchange=13)),
        (380, after_r(collective=20, copy=5, work=15, exchange=15)),
        (370, after_r(collective=20, copy=5, work=15, exchange=15, wait=10)),
        (412, after_r(collective=20, copy=3)),
        (420, after_r(collective=13, copy=2)),
        (434, after_r(copy=1)),
        (435, after_r()),
    ],
)  # fmt: skip
def test_r_cuts_every_kind_of_piece(ready_ns: int, expected: dict[str, int]) -> None:
    assert tail(two_responses(ready_ns=ready_ns)) == expected


def test_r_inside_a_response_that_was_reached_back_to_back() -> None:
    """R = 345 is the end of response 0's copy in."""
    assert tail(two_responses(410, 411, 345)) == {"exposed_collective": 81, "fusion_copy": 10}


@pytest.mark.parametrize("bulk", [True, False])
def test_idle_cycles_are_walked_one_by_one(bulk: bool) -> None:
    """Four idle cycles of 30 ns (10 of them work) 100 ns apart, in one row of the table; R in the second."""
    writer = TraceWriter()
    idle = row(1000, 930, 920, Kind.IDLE)
    if bulk:
        writer.cycle(idle, 4, 100)
    else:
        for each in range(4):
            writer.cycle(row(1000 + 100 * each, 930 + 100 * each, 920 + 100 * each, Kind.IDLE))
    writer.cycle(row(1400, 1330, 1320))
    end = response(writer, 4, 1450, 1430, 1450, 0, 50, 0)
    trace = finish(writer, 1115, end)
    assert trace.cycles["repeat"].tolist() == [4, 1]
    assert tail(trace) == {
        "exposed_collective": 50,
        "cycle_wait": 3 * 70,
        "control_work": 20 + 10 + 10 + 10 * 15 // 30,
        "control_exchange": 30 + 20 + 20 + 10,
    }


def test_the_walk_ends_at_the_first_cycle() -> None:
    """Everything back to cycle 0 came after R (only on odd records): nothing is counted twice or looked up."""
    writer = TraceWriter()
    writer.cycle(row(0))
    end = response(writer, 0, 40, 25, 40, 0, 10, 0)
    assert tail(finish(writer, 0, end)) == {"exposed_collective": 10, "control_work": 15, "control_exchange": 25}


def blocking_cycles(ready_ns: int) -> Trace:
    """Cycle 0 runs two responses one after the other, cycle 1 one."""
    writer = TraceWriter()
    writer.cycle(row(300))
    writer.cycle(row(450, 430, 430))
    assert response(writer, 0, 340, 325, 340, 0, 50, 0) == 390
    assert response(writer, 0, 400, 390, 400, 4, 20, 6, index=1) == 430
    assert response(writer, 1, 470, 462, 470, 0, 30, 0) == 500
    return finish(writer, ready_ns, 500, blocking=True)


def test_blocking_counts_what_lies_between_two_collectives_as_work() -> None:
    """[390, 400] is local work and launch. Cycle 0's own phase [300, 340] has 15 of work, and R = 310 cuts it."""
    assert tail(blocking_cycles(310)) == {
        "exposed_collective": 30 + 20 + 50,
        "fusion_copy": 10,
        "cycle_wait": 20,
        "control_work": 8 + 10 + 15 * 30 // 40,
        "control_exchange": 12 + 30 - 15 * 30 // 40,
    }


@pytest.mark.parametrize(
    ("ready_ns", "expected"),
    [
        (395, after_r(collective=50, copy=10, wait=20, work=13, exchange=12)),
        (390, after_r(collective=50, copy=10, wait=20, work=18, exchange=12)),
        (380, after_r(collective=60, copy=10, wait=20, work=18, exchange=12)),
        (435, after_r(collective=30, wait=15, work=8, exchange=12)),
    ],
)  # fmt: skip
def test_blocking_cut_by_r(ready_ns: int, expected: dict[str, int]) -> None:
    assert tail(blocking_cycles(ready_ns)) == expected


def test_async_never_takes_launches_within_a_cycle_for_a_gap() -> None:
    """The same two responses on a stream: q_1 = 350 while response 0 runs until 390."""
    writer = TraceWriter()
    writer.cycle(row(300))
    response(writer, 0, 340, 325, 340, 0, 50, 0)
    end = response(writer, 0, 350, 325, 390, 0, 30, 0, index=1)
    assert tail(finish(writer, 300, end)) == {"exposed_collective": 80, "control_work": 15, "control_exchange": 25}


def test_second_step_walks_back_no_further_than_its_own_r() -> None:
    writer = TraceWriter()
    writer.cycle(row(10))
    writer.cycle(row(110, 20, 18))
    first = response(writer, 0, 15, 14, 15, 0, 25, 0)
    second = response(writer, 1, 130, 125, 130, 0, 20, 0)
    writer.step(0, 0, 3, 8, 9, 0, first, first + 10)
    writer.step(1, 60, 20, 40, 105, 1, second, second + 7)
    trace = writer.finish()
    assert split(trace, 0) == {
        "forward": 3, "backward": 5, "straggler_wait": 1, "optimizer": 10, **after_r(25, 0, 1, 4, 1),
    }  # fmt: skip
    assert split(trace, 1) == {
        "input_stall": 10, "forward": 20, "backward": 20, "straggler_wait": 5, "optimizer": 7,
        **after_r(20, 0, 5, 15, 5),
    }  # fmt: skip


def waited(ready_ns: int, blocking: bool = False) -> Trace:
    """Cycle 0 enters at 300; its exchange ends at 320; the host then waits for data until 390 and launches at 400:
    shadowed by A. Cycle 1 enters at 450, that rank having finished at 400, late for the same wait."""
    writer = TraceWriter()
    writer.cycle(row(300))
    end = response(writer, 0, 400, 300, 400, 0, 30, 0)
    writer.cycle(row(450, end if blocking else 400, end if blocking else 300))
    end = response(writer, 1, 480, 460, 480, 0, 20, 0)
    return finish(writer, ready_ns, end, blocking)


@pytest.mark.parametrize(
    ("ready_ns", "expected"),
    [
        (390, after_r(collective=20, wait=50, work=20 + 10, exchange=10)),
        (396, after_r(collective=20, wait=50, work=20 + 4, exchange=10)),
        (400, after_r(collective=20, wait=50, work=20, exchange=10)),
    ],
)
def test_what_a_data_wait_leaves_after_r_is_work(ready_ns: int, expected: dict[str, int]) -> None:
    """The wait ends by R, and behind it there is no exchange any more."""
    assert tail(waited(ready_ns)) == expected


def test_the_same_on_a_blocking_plane() -> None:
    assert tail(waited(396, blocking=True)) == after_r(collective=30 + 20, wait=20, work=4 + 20, exchange=10)


def test_a_stream_that_waits_for_data_begins_before_r() -> None:
    """Launched at 340, begun at 390 = R: the launch is hidden, and no pause is left to explain."""
    writer = TraceWriter()
    writer.cycle(row(300))
    end = response(writer, 0, 340, 325, 390, 0, 30, 0)
    assert tail(finish(writer, 390, end)) == {"exposed_collective": 30}


def test_a_rank_alone_has_no_tail() -> None:
    writer = TraceWriter()
    writer.step(0, 0, 30, 90, 90, 0, 90, 95)
    assert split(writer.finish()) == {"forward": 30, "backward": 60, "optimizer": 5}


def stretched(trace: Trace, by: int) -> Trace:
    """Every time and duration ``by`` times as long."""
    tables = (
        {name: column * by if name.endswith("_ns") else column for name, column in table.items()}
        for table in (trace.cycles, trace.responses, trace.steps)
    )
    return Trace(*tables, trace.blocking)


SEEDS = (*range(40), 61, 112)  # the last two have an input floor


def test_all_times_k_times_as_long_make_parts_k_times_as_long() -> None:
    """Exactly so, but for the one division where R cuts a control phase."""
    seen = set()
    for seed in SEEDS:
        trace = vector.run(Problem(random_scenario(seed)))
        parts, longer = breakdown(trace), breakdown(stretched(trace, 7))
        for name in set(PARTS) - {"control_work", "control_exchange"}:
            np.testing.assert_array_equal(longer[name], parts[name] * 7)
        off = longer["control_work"] - parts["control_work"] * 7
        np.testing.assert_array_equal(parts["control_exchange"] * 7 - longer["control_exchange"], off)
        assert (abs(off) < 7).all()
        seen |= {name for name, part in parts.items() if part.any()}
    assert seen == set(PARTS)


def shifted(trace: Trace, by: int) -> Trace:
    """The whole run ``by`` ns later."""
    durations = ("period_ns", "forward_median_ns", "ready_median_ns", "copy_in_ns", "collective_ns", "copy_out_ns")
    tables = (
        {name: column + by * (name.endswith("_ns") and name not in durations) for name, column in table.items()}
        for table in (trace.cycles, trace.responses, trace.steps)
    )
    return Trace(*tables, trace.blocking)


def test_a_later_run_has_the_same_parts() -> None:
    """But for the first input stall, which takes the delay."""
    for seed in SEEDS:
        trace = vector.run(Problem(random_scenario(seed)))
        parts, moved = breakdown(trace), breakdown(shifted(trace, 10**7))
        moved["input_stall"][0] -= 10**7
        for name in PARTS:
            np.testing.assert_array_equal(moved[name], parts[name])


NOISE = Noise(
    Spread("normal", 20_000), Spread("normal", 10_000), Spread("half-normal", 30_000), Spread("exponential", 80_000),
    200_000, 500_000,
)  # fmt: skip


def run(plane: str, **changes: object) -> dict[str, np.ndarray]:
    described: Scenario = scenario(13, steps=4, seed=5, noise=NOISE, control_plane=replace(PLANE, name=plane))
    return breakdown(vector.run(Problem(replace(described, **changes))))


def test_before_r_all_control_planes_are_equal() -> None:
    """The first parts are drawn from the seed; only tails differ. (No input floor: it depends on the step time.)"""
    runs = {plane: run(plane) for plane in CONTROL_PLANES}
    for plane in CONTROL_PLANES[1:]:
        for name in (*HEAD, "optimizer"):
            np.testing.assert_array_equal(runs[plane][name], runs["ideal"][name])
    assert all(runs["ideal"][name].all() for name in HEAD[1:])
    assert len({int(sum(sum(found[name]) for name in CONTROL_PARTS)) for found in runs.values()}) >= 5
    assert (run("ideal", seed=6)["straggler_wait"] != runs["ideal"]["straggler_wait"]).any()


def test_ideal_costs_no_control() -> None:
    ideal, cached = run("ideal"), run("cached")
    for name in CONTROL_PARTS:
        assert not ideal[name].any()
        assert cached[name][1:].all()
