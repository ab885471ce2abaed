"""The closed loop against hand arithmetic, and against the protocol's own negotiators."""

from __future__ import annotations

import math

import numpy as np
import pytest

from coordsim.cost.distributions import scaled_table
from coordsim.simulate.closed_loop import LoopCosts, LoopProblem, run
from coordsim.simulate.closed_loop import draws as compiled
from coordsim.simulate.closed_loop.problem import SHARE_ONE
from tests.protocol.drive import Job, settings, tensor

MS = 1_000_000
FREE = LoopCosts(
    bits_ns=0, ask_ns=0, request_ns=0, requests_alone=False, executing_ns=0, response_ns=0, tensor_ns=0, hit_ns=0,
    byte_ps=0, notice_ns=0, poll_ns=1,
    wake_shift_ns=0, wake_spread_ns=0, stall_ppm=0, stall_ns=0, phase_ppm=0, crowded=False,
    sleep_asked_ns=(1,), sleep_over_ns=(0,),
)  # fmt: skip


def problem(ranks=1, units=1, steps=4, cycle_ns=MS, duration_ns=100_000, gap_ns=0, cores=64, **changes):
    fields = {
        "ranks": ranks, "cores": cores, "cycle_ns": cycle_ns,
        "duration_ns": np.full((ranks, steps), duration_ns, dtype=np.int64),
        "gap_ns": np.full((ranks, steps), gap_ns, dtype=np.int64),
        "share_q30": np.tile(np.arange(1, units + 1) * SHARE_ONE // units, (ranks, 1)).astype(np.int64),
        "unit_bytes": np.full(units, 256, dtype=np.int64), "unit_tensors": np.ones(units, dtype=np.int64),
        "threshold_bytes": 1 << 20, "uncached": np.zeros((steps, units), dtype=np.bool_), "always_asks": False,
        "shuffled": False, "computes": False,
    }  # fmt: skip
    return LoopProblem(**{**fields, **changes})


def test_a_step_ends_with_the_cycle_that_pops_its_last_submission():
    """Wakes at 1, 2, 3... ms; the first step starts at 2 ms, is submitted by 2.1 and popped at 3 ms."""
    found = run(problem(), FREE, seed=0)
    assert found.end_ns.tolist() == [[3 * MS + 1, 4 * MS + 1, 5 * MS + 1, 6 * MS + 1]]
    assert found.submitted_ns[0, 1] == 3 * MS + 1 + 100_000


def test_every_cost_lands_where_it_belongs():
    """Two ranks, one unit of two tensors, uncached in step 1: the whole tail by hand."""
    costs = FREE._replace(
        bits_ns=1_000, ask_ns=5_000, request_ns=700, executing_ns=900, response_ns=20_000, tensor_ns=300, hit_ns=200,
        byte_ps=500, notice_ns=40, poll_ns=10_000,
    )  # fmt: skip
    flags = np.zeros((4, 1), dtype=np.bool_)
    flags[1] = True
    job = problem(2, unit_bytes=np.array([4_000]), unit_tensors=np.array([2]), uncached=flags)
    found = run(job, costs, seed=0)
    work = 900 + 20_000 + 2 * 1 * 4_000 * 500 // (1000 * 2)
    fast = 1_000 + 2 * 200 + work
    slow = 1_000 + 5_000 + 700 * 2 + 2 * 300 + work  # the coordinator's own requests need no parsing
    polled = [(-(-(control - 100_000 + MS) // 10_000)) * 10_000 + 100_000 - MS for control in (fast, slow)]
    assert found.end_ns[0, 0] == found.end_ns[1, 0] == 3 * MS + polled[0] + 40
    second = found.end_ns[0, 0] + 100_000
    finish = 4 * MS + slow
    assert found.end_ns[0, 1] == second + -(-(finish - second) // 10_000) * 10_000 + 40
    assert found.slow_cycles == 1


@pytest.mark.parametrize(("along_bytes", "trips"), [(256, 4), (255, 6), (-1, 6)])
def test_over_a_star_rank_0_is_a_trip_ahead(along_bytes, trips):
    """One tensor back to back: a cycle that comes too early, up and down; then the one that agrees, up and down; then
    the reduction, up and down, unless it has travelled along."""
    costs = FREE._replace(star_ns=5 * MS, along_bytes=along_bytes)
    found = run(problem(2, steps=8), costs, seed=0)
    assert np.diff(found.end_ns[0])[2:] == pytest.approx(trips * 5 * MS, abs=100)
    assert found.end_ns[1, 2:] - found.end_ns[0, 2:] == pytest.approx(5 * MS, abs=10)


def test_what_travels_along_saves_its_hops():
    costs = FREE._replace(response_ns=50_000)
    rides = run(problem(2), costs._replace(ride_ns=30_000, along_bytes=1 << 16), seed=0)
    apart = run(problem(2), costs, seed=0)
    assert (apart.end_ns - rides.end_ns)[:, 0].tolist() == [30_000, 30_000]
    two = {"unit_bytes": np.array([256, 256]), "threshold_bytes": 256}
    several = [
        run(problem(2, 2, **two), each, seed=0).end_ns.tolist()
        for each in (costs, costs._replace(ride_ns=30_000, along_bytes=1 << 16))
    ]
    assert several[0] == several[1]


def test_ranks_beyond_the_cores_stretch_work_and_hops():
    costs = FREE._replace(bits_ns=6_000, response_ns=10_000, byte_ps=1_000)
    alone = run(problem(4, cores=4), costs, seed=0).end_ns[0, 0] - 3 * MS
    shared = run(problem(4, cores=2), costs, seed=0).end_ns[0, 0] - 3 * MS
    moved = 2 * 3 * 256  # bytes times 1 ns
    assert alone == 16_000 + moved // 4
    assert shared == 2 * 16_000 + moved // 2


def test_a_coordinator_among_blocked_ranks_counts_at_full_speed():
    """Four ranks on two cores: what all do at once takes twice as long, what one does while three block does not."""
    asks = {"uncached": np.ones((4, 1), dtype=np.bool_), "always_asks": True, "cores": 2}
    costs = FREE._replace(ask_ns=5_000, request_ns=700, poll_ns=1)
    spin, block = (
        run(problem(4, **asks), costs._replace(requests_alone=alone), 0).end_ns[0, 0] for alone in (False, True)
    )
    assert spin == 3 * MS + 2 * (5_000 + 3 * 700)
    assert block == 3 * MS + 2 * 5_000 + 3 * 700


def test_a_main_thread_that_computes_holds_its_background_thread():
    """The loop would wake at 2 and 3 ms, as rank 1's burst begins and in its middle; it wakes as it ends, at 3.5."""
    burst = np.full((2, 4), 100_000)
    burst[1, 0] = MS + MS // 2
    job = problem(2, units=3, duration_ns=burst, computes=True)
    free, held = (run(job, FREE._replace(held_ns=held), 0) for held in (0, 5 * MS))
    assert free.messages[0] == held.messages[0] + 1 == 2
    assert (free.end_ns[0, 0], held.end_ns[0, 0]) == (4 * MS + 1, 3 * MS + MS // 2 + 1)
    short = run(job, FREE._replace(held_ns=100_000), 0)  # twice as long as a switch takes, not until the burst ends
    assert short.end_ns[0, 0] == 4 * MS + 2 * 100_000 + 1


def test_a_sleep_takes_what_sleeps_take():
    over = {"sleep_asked_ns": (0, 1_000_000), "sleep_over_ns": (50_000, 90_000)}
    found = run(problem(), FREE._replace(**over, wake_shift_ns=-10_000), seed=0)
    period = MS + 90_000 - 10_000 - 1  # asked for 1 ns less than a cycle: the cycle itself took that
    assert np.diff(found.end_ns[0]).tolist() == pytest.approx([period] * 3, abs=2)


def test_crowded_main_threads_take_turns():
    """Bursts of 0.6 ms after every step, while the loop idles 1 ms less its work."""
    free, busy = (
        run(problem(2, duration_ns=600_000, computes=True), FREE._replace(response_ns=500_000, crowded=crowded), 0)
        for crowded in (False, True)
    )
    assert (free.end_ns[0] == free.end_ns[1]).all()
    assert abs(int(busy.end_ns[0, 0] - busy.end_ns[1, 0])) == 600_000


def test_bursts_that_fit_into_the_idle_part_run_side_by_side():
    """Two bursts of 0.6 ms and a loop that idles 4.5 of 5 ms; at 1 ms the same two take turns (above)."""
    job = problem(2, cycle_ns=5 * MS, duration_ns=600_000, computes=True)
    found = run(job, FREE._replace(response_ns=500_000, crowded=True), 0)
    assert (found.end_ns[0] == found.end_ns[1]).all()


def test_long_bursts_are_moved_to_another_core():
    found = run(problem(2, duration_ns=3 * MS, computes=True), FREE._replace(crowded=True), 0)
    assert (found.end_ns[0] == found.end_ns[1]).all()


def test_stalls_come_as_often_as_asked():
    quiet = run(problem(steps=400), FREE, 0)
    stalled = run(problem(steps=400), FREE._replace(stall_ppm=1_000_000, stall_ns=5 * MS), 0)
    assert np.diff(quiet.end_ns[0]).max() == MS
    steps = np.diff(stalled.end_ns[0])
    assert 4.4 * MS < steps.mean() < 5.8 * MS  # a stall, or a cycle where that is longer: 5.1 ms in the mean


def test_the_threshold_splits_messages():
    whole = run(problem(units=8), FREE, 0)
    split = run(problem(units=8, threshold_bytes=512), FREE, 0)
    alone = run(problem(units=8, threshold_bytes=0), FREE, 0)
    assert whole.messages.tolist() == [1] * 4
    assert split.messages.tolist() == [4] * 4
    assert alone.messages.tolist() == [8] * 4


def test_same_seed_same_launch_and_another_seed_another():
    noisy = FREE._replace(wake_spread_ns=20_000, stall_ppm=50_000, stall_ns=MS)
    first, again, other = (run(problem(3, steps=30), noisy, seed) for seed in (1, 1, 2))
    assert (first.end_ns == again.end_ns).all()
    assert (first.end_ns != other.end_ns).any()


@pytest.mark.parametrize("seed", range(6))
def test_the_protocol_decides_the_same(seed):
    """The loop's counting against every rank's own negotiator, fed by the same pops: every end, every message."""
    rng = np.random.default_rng(seed)
    ranks, units, steps = int(rng.integers(1, 5)), int(rng.integers(1, 12)), 5
    asks = bool(seed % 2)
    job = problem(
        ranks, units, steps, cores=int(rng.integers(1, 5)),
        duration_ns=rng.integers(100_000, 4 * MS, (ranks, steps)),
        gap_ns=rng.integers(0, 300_000, (ranks, steps)),
        share_q30=np.sort(rng.integers(1, SHARE_ONE, (ranks, units)), axis=1),
        unit_bytes=4 * rng.integers(1, 200, units), threshold_bytes=int(rng.integers(0, 1500)),
        uncached=np.array([[asks or step == 0] * units for step in range(steps)]),
        always_asks=asks, shuffled=seed >= 4, computes=bool(rng.integers(2)),
        held_up_ppm=300_000, disturbed_ppm=100_000,
    )  # fmt: skip
    costs = LoopCosts(
        bits_ns=3_000, ask_ns=9_000, request_ns=800, requests_alone=bool(rng.integers(2)), executing_ns=4_000,
        response_ns=30_000, tensor_ns=1_500, hit_ns=1_100, byte_ps=700, notice_ns=600, poll_ns=120_000,
        wake_shift_ns=-500, wake_spread_ns=4_000, stall_ppm=30_000, stall_ns=2 * MS,
        phase_ppm=300_000, crowded=bool(rng.integers(2)), sleep_asked_ns=(50_000, MS), sleep_over_ns=(70_000, 85_000),
        held_ns=int(rng.integers(2)) * 700_000, late_ppm=400_000, late_ns=2 * MS, taken_ppm=900_000,
    )  # fmt: skip
    if job.shuffled:  # in pop order the sizes fuse otherwise than in bit order; equal sizes do not care
        job.unit_bytes[:] = 256
    found = run(job, costs, seed)
    end, submitted, messages, slow = reference(job, costs, seed)
    assert (found.submitted_ns == submitted).all()
    assert (found.end_ns == end).all()
    assert found.messages.tolist() == messages
    assert found.slow_cycles == slow


def reference(job, costs, seed):
    """The loop in plain Python, with the protocol's negotiators in lock-step instead of counting."""
    draw, table = compiled.draw.py_func, compiled.table_q16.py_func
    oversleep = compiled.oversleep.py_func
    normal, exponential = scaled_table("half-normal", 1_000_000), scaled_table("exponential", 1_000_000)
    seed = np.uint64(seed)
    kind = "coordinator" if job.always_asks else "cached"
    protocol = Job(kind, settings(job.ranks, threshold=job.threshold_bytes))
    requests = [tensor(f"t{unit}", int(nbytes) // 4) for unit, nbytes in enumerate(job.unit_bytes)]
    asked, over = np.array(costs.sleep_asked_ns), np.array(costs.sleep_over_ns)
    stretch = max(job.ranks, job.cores)
    with np.errstate(over="ignore"):
        wake = [job.cycle_ns * (1_000_000 - costs.phase_ppm) // 1_000_000] * job.ranks
        wake[int(draw(seed, 1, 0, 0)) * job.ranks >> 32] = job.cycle_ns

        def rarely(ppm, mean, stream, counter, rank):
            if int(draw(seed, stream, counter, rank)) < ppm * (1 << 32) // 1_000_000:
                return (mean * int(table(int(draw(seed, stream + 1, counter, rank)), *exponential))) >> 16
            return 0

        late_ppm = job.disturbed_ppm * costs.late_ppm // 1_000_000
        taken_ppm = job.held_up_ppm * costs.taken_ppm // 1_000_000 if job.ranks <= job.cores else 0

        def sleep(finish, cycle, step):
            for rank in range(job.ranks):
                due = wake[rank] + job.cycle_ns
                wake[rank] = finish
                if due > finish:
                    u = int(draw(seed, 2, cycle, rank))
                    z = int(table(u, *normal))
                    late = int(oversleep(due - finish, asked, over)) + costs.wake_shift_ns
                    late += (costs.wake_spread_ns * (-z if u >> 31 else z)) >> 16
                    wake[rank] = due + max(late, 0)
                if start[rank] <= wake[rank] < start[rank] + int(job.duration_ns[rank, step]):
                    wake[rank] += rarely(late_ppm, costs.late_ns, 6, cycle, rank % job.cores)
            stalled = rarely(costs.stall_ppm, costs.stall_ns, 3, cycle, 0)
            if stalled:
                wake[:] = [max(each, finish + stalled) for each in wake]

        start = [2 * job.cycle_ns + int(job.gap_ns[rank, 0]) for rank in range(job.ranks)]
        busy = list(start)
        end, submitted = np.zeros((2, job.ranks, job.steps), dtype=np.int64)
        messages, slow_cycles, cycle, step = [0] * job.steps, 0, 0, 0
        waiting = submissions(job, start, 0, seed, draw)
        orders = [[unit for _, unit in of_rank] for of_rank in waiting]
        executed = {}
        left = len(requests)
        while step < job.steps:
            for rank in range(job.ranks):
                until = start[rank] + int(job.duration_ns[rank, step])
                if costs.held_ns and job.computes and busy[rank] <= wake[rank] < until:
                    wake[rank] = min(until, wake[rank] + costs.held_ns)
                while waiting[rank] and waiting[rank][0][0] <= wake[rank]:
                    protocol.submit(rank, requests[waiting[rank].pop(0)[1]])
            schedule = protocol.cycle()
            sent = sum(len(names) for names in protocol.asked[-1][1:])
            control = 0 if job.always_asks else costs.bits_ns
            counting = 0
            if schedule.slow:
                control += costs.ask_ns
                counting = costs.request_ns * sent
                slow_cycles += 1
            if not costs.requests_alone:
                control, counting = control + counting, 0
            finish = max(wake) + max(control * stretch // job.cores + counting, 1)
            if schedule.responses:
                names = [name for response in schedule.responses for name in response.names]
                new = sum(int(job.uncached[step, int(name[1:])]) for name in names)
                moved = sum(response.nbytes for response in schedule.responses)
                work = costs.response_ns * len(schedule.responses)
                work += costs.tensor_ns * new + costs.hit_ns * (len(names) - new)
                finish += costs.executing_ns * stretch // job.cores
                finish += work * stretch // job.cores
                finish += 2 * (job.ranks - 1) * moved * costs.byte_ps // (1000 * min(job.ranks, job.cores))
                messages[step] += len(schedule.responses)
                left -= len(names)
                executed.update({int(name[1:]): finish for name in names})
            idle = min(max(each + job.cycle_ns - finish, 0) for each in wake)
            cycle += 1
            sleep(finish, cycle, step)
            if left:
                continue
            waits = [last_wait(job, costs, step, start, rank, orders[rank], executed) for rank in range(job.ranks)]
            for rank, (noticed, handling) in enumerate(waits):
                if job.computes and noticed > start[rank] + int(job.duration_ns[rank, step]):
                    waits[rank] = noticed + rarely(taken_ppm, costs.late_ns, 8, step, rank % job.cores), handling
            go_on(job, costs, step, start, waits, idle, submitted, end)
            step += 1
            left = len(requests)
            if step < job.steps:
                busy = [int(end[rank, step - 1]) - waits[rank][1] for rank in range(job.ranks)]
                start = [int(end[rank, step - 1] + job.gap_ns[rank, step]) for rank in range(job.ranks)]
                waiting = submissions(job, start, step, seed, draw)
                orders = [[unit for _, unit in of_rank] for of_rank in waiting]
    return end, submitted, messages, slow_cycles


def submissions(job, start, step, seed, draw):
    """By rank: (time, unit) in the order in which the rank submits."""
    found = []
    for rank in range(job.ranks):
        order = list(range(job.units))
        if job.shuffled:
            for u in range(job.units - 1, 0, -1):
                v = int(draw(seed, 5, step * job.units + u, rank)) * (u + 1) >> 32
                order[u], order[v] = order[v], order[u]
        at = [start[rank] + (int(job.duration_ns[rank, step]) * int(share) >> 30) for share in job.share_q30[rank]]
        found.append(list(zip(at, order, strict=True)))
    return found


def last_wait(job, costs, step, start, rank, order, executed):
    """When a rank goes on after its last wait in a step, and how long it handles units from then on."""
    noticed = now = start[rank] + int(job.duration_ns[rank, step])
    for unit in order:
        if executed[unit] > now:
            noticed = now = now + math.ceil((executed[unit] - now) / costs.poll_ns) * costs.poll_ns
        now += costs.notice_ns
    return noticed, now - noticed


def go_on(job, costs, step, start, waits, idle, submitted, end):
    """Main threads handle what a step left them, in turn where they crowd one core."""
    last = step + 1 == job.steps
    ahead = [
        0 if last or not job.computes else int(job.gap_ns[rank, step + 1] + job.duration_ns[rank, step + 1])
        for rank in range(job.ranks)
    ]
    for rank in range(job.ranks):
        submitted[rank, step] = start[rank] + int(job.duration_ns[rank, step])
    noticed = [each[0] for each in waits]
    burst = max(handling + more for (_, handling), more in zip(waits, ahead, strict=True))
    crowd = costs.crowded and burst <= job.cycle_ns and job.ranks * burst > idle
    lanes = [0] * (1 if crowd else min(job.cores, job.ranks))
    for rank in sorted(range(job.ranks), key=lambda each: noticed[each]):
        lane = lanes.index(min(lanes))
        end[rank, step] = max(noticed[rank], lanes[lane]) + waits[rank][1]
        lanes[lane] = int(end[rank, step]) + ahead[rank]
