"""The closed loop, compiled: one pass over cycles, integer ns throughout.

:func:`closed_loop` is the page to read first: a step is submitted, cycles pop and execute it, and its end is noticed.
Every other function here is one of its steps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from coordsim.simulate.closed_loop.draws import (
    LATE,
    ORDER,
    PHASE,
    STALL,
    TAKEN,
    WAKE,
    Draws,
    draw,
    oversleep,
    table_q16,
)
from coordsim.simulate.closed_loop.problem import Int64, LoopCosts
from coordsim.simulate.vector.kernels import compiled, inlined


class Job(NamedTuple):
    """:class:`coordsim.simulate.closed_loop.LoopProblem`, for the compiler: the same names, the same shapes."""

    cores: int
    cycle: int
    duration: Int64
    gap: Int64
    share: Int64
    unit_bytes: Int64
    unit_tensors: Int64
    threshold: int
    uncached: npt.NDArray[np.bool_]
    always_asks: bool
    shuffled: bool
    computes: bool
    late_ppm: int
    """Probability, each cycle and rank, that its loop alone wakes late while its main thread submits."""
    taken_ppm: int
    """Probability, each step and rank, that its main thread goes on late."""


class Outcome(NamedTuple):
    """What is filled in, ns."""

    submitted: Int64
    """Shape [rank, step]."""
    end: Int64
    """Shape [rank, step]."""
    messages: Int64
    """Shape [step]: fused responses."""


class Loops(NamedTuple):
    """Where all ranks are, ns. Main threads and background threads are a pair on each rank."""

    wake: Int64
    """Shape [rank]: when the background thread begins its next cycle."""
    start: Int64
    """Shape [rank]: when the main thread began the step."""
    busy: Int64
    """Shape [rank]: since when the main thread computes."""
    popped: Int64
    """Shape [rank]: how many of the step's units the background thread has popped."""
    submit_at: Int64
    """Shape [rank, place]: when the unit at a place in the rank's order is submitted ..."""
    order: Int64
    """... and which unit that is."""
    asked_by: Int64
    """Shape [unit]: how many ranks have popped it."""
    common: Int64
    """Shape [unit]: those that became common in this cycle, as many as :attr:`Popped.common`."""
    executed: Int64
    """Shape [unit]: when the cycle ended that executed it."""
    handling: Int64
    """Shape [rank]: what a main thread still handles once the unit is done that it waited for last."""


class Popped(NamedTuple):
    """One cycle's pops on all ranks."""

    common: int
    """Units that every rank has popped by now, and had not before."""
    begun: int
    """Units that a rank popped first, less those that became common."""
    requests: int
    """Tensors that the coordinator is asked for by other ranks than its own, which need no parsing."""
    asked: bool
    """Whether any rank asks the coordinator."""


@compiled
def closed_loop(job: Job, costs: LoopCosts, draws: Draws, outcome: Outcome) -> tuple[int, int]:
    """Fill ``outcome``; returns (cycles, cycles in which the coordinator was asked)."""
    steps, units = job.duration.shape[1], job.unit_bytes.size
    loops = begin(job, costs, draws)
    cycles = slow_cycles = 0
    for step in range(steps):
        submit(loops, job, step, draws)
        left = units
        partial = 0  # units that some ranks have popped and not all
        finish = idle = 0
        while left:
            if costs.held_ns and job.computes:
                hold(loops, job, step, costs.held_ns)
            popped = pop(loops, job, step)
            left -= popped.common
            partial += popped.begun
            slow = job.always_asks or popped.asked
            slow_cycles += slow
            finish = last_entry(loops, costs.star_ns) + negotiation_ns(job, costs, popped)
            if popped.common:
                count = fused_count(loops.common, popped.common, job.unit_bytes, job.threshold)
                alike = partial == 0 and not slow  # the bits, on all ranks
                finish += execution_ns(loops, job, costs, step, popped.common, count, alike)
                outcome.messages[step] += count
                for i in range(popped.common):
                    loops.executed[loops.common[i]] = finish
            cycles += 1
            idle = sleep(loops, job, costs, draws, step, cycles, finish)
            stall(loops, costs, draws, cycles, finish)
        notice(loops, job, costs, draws, outcome, step, idle)
        go_on(loops, job, outcome, step)
    return cycles, slow_cycles


@compiled
def begin(job: Job, costs: LoopCosts, draws: Draws) -> Loops:
    """One loop wakes last, all others a share of a cycle before it; steps begin once every loop has had a cycle."""
    ranks, units = job.duration.shape[0], job.unit_bytes.size
    wake = np.full(ranks, job.cycle * (1_000_000 - costs.phase_ppm) // 1_000_000, np.int64)
    wake[draw(draws.seed, PHASE, 0, 0) * ranks >> 32] = job.cycle
    start = 2 * job.cycle + job.gap[:, 0]
    return Loops(
        wake, start, start.copy(), np.zeros(ranks, np.int64), np.empty((ranks, units), np.int64),
        np.empty((ranks, units), np.int64), np.zeros(units, np.int64), np.empty(units, np.int64),
        np.empty(units, np.int64), np.empty(ranks, np.int64),
    )  # fmt: skip


@inlined
def submit(loops: Loops, job: Job, step: int, draws: Draws) -> None:
    """Main threads submit the units of a step, spread over as long as they were recorded to take."""
    ranks, units = loops.order.shape
    loops.asked_by[:] = 0
    loops.popped[:] = 0
    for r in range(ranks):
        for u in range(units):
            loops.submit_at[r, u] = loops.start[r] + (job.duration[r, step] * job.share[r, u] >> 30)
            loops.order[r, u] = u
        if job.shuffled:
            for u in range(units - 1, 0, -1):
                v = draw(draws.seed, ORDER, step * units + u, r) * (u + 1) >> 32
                loops.order[r, u], loops.order[r, v] = loops.order[r, v], loops.order[r, u]


@inlined
def hold(loops: Loops, job: Job, step: int, held: int) -> None:
    """A background thread of Python's that wakes while its main thread computes waits until that is done, but no longer
    than the interpreter lets a thread run."""
    for r in range(loops.wake.size):
        until = loops.start[r] + job.duration[r, step]
        if loops.busy[r] <= loops.wake[r] < until:
            loops.wake[r] = min(until, loops.wake[r] + held)


@inlined
def last_entry(loops: Loops, star: int) -> int:
    """When rank 0 has everybody's message: those of other ranks are ``star`` longer on their way."""
    entered = loops.wake[0]
    for r in range(1, loops.wake.size):
        entered = max(entered, loops.wake[r] + star)
    return int(entered)


@inlined
def pop(loops: Loops, job: Job, step: int) -> Popped:
    """Each rank takes what was submitted before it woke (docs/semantics.md 3.2). A unit is common once all have."""
    ranks, units = loops.order.shape
    common = begun = requests = 0
    asked = False
    for r in range(ranks):
        while loops.popped[r] < units and loops.submit_at[r, loops.popped[r]] <= loops.wake[r]:
            unit = loops.order[r, loops.popped[r]]
            loops.popped[r] += 1
            loops.asked_by[unit] += 1
            if job.uncached[step, unit]:
                asked = True
                if r:
                    requests += job.unit_tensors[unit]
            if loops.asked_by[unit] == 1:
                begun += 1
            if loops.asked_by[unit] == ranks:
                begun -= 1
                loops.common[common] = unit
                common += 1
    return Popped(common, begun, requests, asked)


@inlined
def stretched(work: int, job: Job) -> int:
    """CPU time and hops between threads take longer when more ranks than there are cores want to run."""
    return int(work * max(job.duration.shape[0], job.cores) // job.cores)


@inlined
def negotiation_ns(job: Job, costs: LoopCosts, popped: Popped) -> int:
    """Intersecting bits where there is a cache, and asking the coordinator where anybody must."""
    control = 0 if job.always_asks else costs.bits_ns
    counting = 0
    if job.always_asks or popped.asked:
        control += costs.ask_ns
        counting = costs.request_ns * popped.requests
    trips = popped.asked and not job.always_asks  # of rank 0 over its star, while it waits
    if costs.requests_alone:  # the others block meanwhile: the coordinator has a core to itself
        return max(stretched(control, job) + counting, 1) + 2 * costs.star_ns * trips
    return max(stretched(control + counting, job), 1) + 2 * costs.star_ns * trips


@inlined
def fused_count(common: Int64, size: int, unit_bytes: Int64, threshold: int) -> int:
    """Responses that ``size`` allreduces of one kind make, in this order (docs/horovod.md 3.5)."""
    count, held = 0, threshold
    for i in range(size):
        more = unit_bytes[common[i]]
        if count == 0 or held + more > threshold:
            count += 1
            held = 0
        held += more
    return count


@inlined
def execution_ns(loops: Loops, job: Job, costs: LoopCosts, step: int, size: int, count: int, alike: bool) -> int:
    """What ``size`` common units take as ``count`` responses.

    Where the bits were ``alike`` on all ranks, one small response has travelled with them.
    """
    ranks = loops.wake.size
    work, moved = costs.response_ns * count, 0
    for i in range(size):
        unit = loops.common[i]
        work += (costs.tensor_ns if job.uncached[step, unit] else costs.hit_ns) * job.unit_tensors[unit]
        moved += job.unit_bytes[unit]
    time = stretched(work, job) + 2 * (ranks - 1) * moved * costs.byte_ps // (1000 * min(ranks, job.cores))
    if alike and count == 1 and moved <= costs.along_bytes:
        return time - stretched(costs.ride_ns, job)
    return time + stretched(costs.executing_ns, job) + 2 * costs.star_ns * count


@inlined
def sleep(loops: Loops, job: Job, costs: LoopCosts, draws: Draws, step: int, cycle: int, finish: int) -> int:
    """Every loop sleeps until a cycle after it woke, and somewhat longer; one that is late goes on at once.

    Returns the shortest sleep that was asked for, 0 where a loop did not sleep.
    """
    idle = job.cycle
    for r in range(loops.wake.size):
        due = loops.wake[r] + job.cycle
        done = finish + (costs.star_ns if r else 0)
        if due <= done:
            idle = 0
            loops.wake[r] = done
        else:
            idle = min(idle, due - done)
            over = oversleep(due - done, draws.sleep_asked, draws.sleep_over) + costs.wake_shift_ns
            u = draw(draws.seed, WAKE, cycle, r)
            z = table_q16(u, draws.normal, draws.normal_slope)
            over += (costs.wake_spread_ns * (-z if u >> 31 else z)) >> 16
            loops.wake[r] = due + max(over, 0)
        if loops.start[r] <= loops.wake[r] < loops.start[r] + job.duration[r, step]:
            # its own main thread is at work and may have the core; others wait, and are a cycle ahead from then on
            loops.wake[r] += rarely(job.late_ppm, costs.late_ns, draws, LATE, cycle, r % job.cores)
    return idle


@inlined
def rarely(ppm: int, mean: int, draws: Draws, stream: int, counter: int, rank: int) -> int:
    """An exponential time of that mean, with that probability; else 0. Uses the stream and the one after it."""
    below = ppm * (1 << 32) // 1_000_000
    if below and draw(draws.seed, stream, counter, rank) < below:
        u = draw(draws.seed, stream + 1, counter, rank)
        return int((mean * table_q16(u, draws.exponential, draws.exponential_slope)) >> 16)
    return 0


@inlined
def stall(loops: Loops, costs: LoopCosts, draws: Draws, cycle: int, finish: int) -> None:
    """Rarely the machine stands still for everybody, as a virtual one does; who was due meanwhile wakes together."""
    until = finish + rarely(costs.stall_ppm, costs.stall_ns, draws, STALL, cycle, 0)
    if until > finish:
        for r in range(loops.wake.size):
            loops.wake[r] = max(loops.wake[r], until)


@compiled
def notice(
    loops: Loops, job: Job, costs: LoopCosts, draws: Draws, outcome: Outcome, step: int, idle: int
) -> None:
    """Main threads handle a step's units one after another, on as many cores as they get."""
    ranks = loops.wake.size
    at = np.empty(ranks, np.int64)
    for r in range(ranks):
        outcome.submitted[r, step] = loops.start[r] + job.duration[r, step]
        at[r] = last_wait(loops, costs, r, outcome.submitted[r, step])
        if job.computes and at[r] > outcome.submitted[r, step]:  # a core that it left is taken by others who compute
            at[r] += rarely(job.taken_ppm, costs.late_ns, draws, TAKEN, step, r % job.cores)
    free = np.zeros(lanes(loops, job, costs, step, idle), np.int64)
    for r in np.argsort(at, kind="mergesort"):  # in the order in which they go on
        lane = np.argmin(free)
        outcome.end[r, step] = max(at[r], free[lane]) + loops.handling[r]
        free[lane] = outcome.end[r, step] + burst(job, r, step)


@inlined
def last_wait(loops: Loops, costs: LoopCosts, r: int, submitted: int) -> int:
    """When rank ``r`` has waited for the last time in a step; what it handles from then on is left in ``handling``.

    From its last submission on it handles its units in the order in which it submitted them. Where one is not done,
    it polls, and those behind it wait as well.
    """
    at = after = submitted
    for place in range(loops.order.shape[1]):
        done = loops.executed[loops.order[r, place]] + (costs.star_ns if r else 0)
        if after < done:
            at = after = after - (after - done) // costs.poll_ns * costs.poll_ns
        after += costs.notice_ns
    loops.handling[r] = after - at
    return at


@inlined
def burst(job: Job, r: int, step: int) -> int:
    """How long a main thread computes after a step, until it has submitted the next."""
    if job.computes and step + 1 < job.duration.shape[1]:
        return int(job.gap[r, step + 1] + job.duration[r, step + 1])
    return 0


@inlined
def lanes(loops: Loops, job: Job, costs: LoopCosts, step: int, idle: int) -> int:
    """Cores that main threads get: one where they take turns (docs/validation.md 3), else all there are."""
    ranks = loops.wake.size
    longest = 0
    for r in range(ranks):
        longest = max(longest, loops.handling[r] + burst(job, r, step))
    if costs.crowded and longest <= job.cycle and ranks * longest > idle:
        return 1
    return min(job.cores, ranks)


@inlined
def go_on(loops: Loops, job: Job, outcome: Outcome, step: int) -> None:
    """Each rank starts its next step when it has noticed the end of the last one, after a pause of its own."""
    if step + 1 < job.duration.shape[1]:
        for r in range(loops.wake.size):
            loops.busy[r] = outcome.end[r, step] - loops.handling[r]
            loops.start[r] = outcome.end[r, step] + job.gap[r, step + 1]
