"""The closed loop, compiled: one pass over cycles, integer ns throughout."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from coordsim.simulate.closed_loop.problem import Int64
from coordsim.simulate.vector.kernels import compiled

U64 = np.uint64
Int32 = npt.NDArray[np.int32]

_PHASE, _WAKE, _STALL, _STALL_LENGTH, _ORDER = range(1, 6)


@compiled
def draw(seed: np.uint64, stream: int, counter: int, rank: int) -> int:
    """32 random bits of one place in one stream: SplitMix64 over a mixed counter."""
    z = U64(seed) * U64(0x9E3779B97F4A7C15) + U64(stream) * U64(0xD1B54A32D192ED03)
    z += U64(counter) * U64(0x8CB92BA72F3D8DD7) + U64(rank + 1) * U64(0x9FB21C651E98DF25)
    for _ in range(2):
        z ^= z >> U64(30)
        z *= U64(0xBF58476D1CE4E5B9)
        z ^= z >> U64(27)
        z *= U64(0x94D049BB133111EB)
        z ^= z >> U64(31)
    return int(z >> U64(32))


@compiled
def table_q16(u32: int, base: Int32, slope: Int32) -> int:
    """:func:`coordsim.cost.distributions.sampling.sample_q16` without the sign."""
    u = u32 & 0x7FFFFFFF
    index, fraction = u >> 21, (u >> 9) & 4095
    if index == 1023:
        index, fraction = 1024 + ((u >> 11) & 1023), (u & 2047) << 1
    return int(base[index]) + ((int(slope[index]) * fraction) >> 12)


@compiled
def oversleep(asked: int, asked_ns: Int64, over_ns: Int64) -> int:
    """How much longer than ``asked`` a sleep takes: linear between the measured lengths, flat outside."""
    last = asked_ns.size - 1
    if asked <= asked_ns[0]:
        return int(over_ns[0])
    if asked >= asked_ns[last]:
        return int(over_ns[last])
    i = 0
    while asked_ns[i + 1] < asked:
        i += 1
    share = (over_ns[i + 1] - over_ns[i]) * (asked - asked_ns[i]) // (asked_ns[i + 1] - asked_ns[i])
    return int(over_ns[i] + share)


@compiled
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


@compiled
def closed_loop(
    cores: int, cycle_ns: int, duration: Int64, gap: Int64, share: Int64, unit_bytes: Int64, unit_tensors: Int64,
    threshold: int, uncached: npt.NDArray[np.bool_], always_asks: bool, shuffled: bool, computes: bool,
    costs: Int64, star: int, ride: int, along_bytes: int, held: int, sleep_asked: Int64, sleep_over: Int64,
    normal: Int32, normal_slope: Int32, exponential: Int32, exponential_slope: Int32,
    seed: Any, submitted: Int64, end: Int64, messages: Int64,
) -> tuple[int, int]:  # fmt: skip
    """Fill ``submitted`` and ``end`` [rank, step] and ``messages`` [step]; returns (cycles, slow cycles)."""
    bits, ask, request, alone, executing, response, tensor, hit, byte_ps, notice = costs[:10]
    poll, shift, spread, stall_ppm, stall, phase_ppm, crowded = costs[10:]
    ranks, steps = duration.shape
    units = unit_bytes.size
    stall_below = stall_ppm * (1 << 32) // 1_000_000
    # CPU time and hops between threads stretch when more ranks than cores want to run
    stretch_by, stretch_of = max(ranks, cores), cores
    movers = min(ranks, cores)
    wake = np.empty(ranks, np.int64)
    start = np.empty(ranks, np.int64)
    busy = np.empty(ranks, np.int64)  # since when a main thread computes
    popped = np.zeros(ranks, np.int64)
    asked_by = np.zeros(units, np.int64)
    submit_at = np.empty((ranks, units), np.int64)
    order = np.empty((ranks, units), np.int64)
    common = np.empty(units, np.int64)
    turn = np.empty(ranks, np.int64)
    notices = np.empty(ranks, np.int64)
    for r in range(ranks):
        wake[r] = cycle_ns * (1_000_000 - phase_ppm) // 1_000_000
        start[r] = 2 * cycle_ns + gap[r, 0]
        busy[r] = start[r]
    wake[draw(seed, _PHASE, 0, 0) * ranks >> 32] = cycle_ns
    cycle = 0
    slow_cycles = 0
    partial = 0  # units that some ranks have popped and not all
    step = 0
    left = 0
    while step < steps:
        if left == 0:
            left = units
            asked_by[:] = 0
            partial = 0
            popped[:] = 0
            for r in range(ranks):
                for u in range(units):
                    submit_at[r, u] = start[r] + (duration[r, step] * share[r, u] >> 30)
                    order[r, u] = u
                if shuffled:
                    for u in range(units - 1, 0, -1):
                        v = draw(seed, _ORDER, step * units + u, r) * (u + 1) >> 32
                        order[r, u], order[r, v] = order[r, v], order[r, u]
        if held and computes:
            for r in range(ranks):
                if busy[r] <= wake[r] < start[r] + duration[r, step]:
                    wake[r] = min(start[r] + duration[r, step], wake[r] + held)
        entered = wake[0]  # when rank 0 has everybody's message
        for r in range(1, ranks):
            entered = max(entered, wake[r] + star)
        # pops (docs/semantics.md 3.2); a unit is common once every rank has popped it
        found = 0
        requests = 0
        asked = False
        for r in range(ranks):
            while popped[r] < units and submit_at[r, popped[r]] <= wake[r]:
                unit = order[r, popped[r]]
                popped[r] += 1
                asked_by[unit] += 1
                if uncached[step, unit]:
                    asked = True
                    if r:  # the coordinator's own need no parsing
                        requests += unit_tensors[unit]
                if asked_by[unit] == 1:
                    partial += 1
                if asked_by[unit] == ranks:
                    partial -= 1
                    common[found] = unit
                    found += 1
        control = 0 if always_asks else bits
        counting = 0
        trips = 0  # of rank 0, to everybody and back, while it waits
        if always_asks or asked:
            control += ask
            counting = request * requests
            slow_cycles += 1
            trips += not always_asks
        if not alone:
            control += counting
            counting = 0
        finish = entered + max(control * stretch_by // stretch_of + counting, 1)
        if found:
            left -= found
            count = fused_count(common, found, unit_bytes, threshold)
            work, moved = response * count, 0
            for i in range(found):
                work += (tensor if uncached[step, common[i]] else hit) * unit_tensors[common[i]]
                moved += unit_bytes[common[i]]
            work = work * stretch_by // stretch_of
            finish += work + 2 * (ranks - 1) * moved * byte_ps // (1000 * movers)
            # equal bits on all ranks, one small response: it has travelled with them
            if count == 1 and moved <= along_bytes and partial == 0 and not (always_asks or asked):
                finish -= ride * stretch_by // stretch_of
            else:
                trips += count
                finish += executing * stretch_by // stretch_of
            messages[step] += count
        finish += 2 * star * trips
        cycle += 1
        idle = cycle_ns
        for r in range(ranks):
            due = wake[r] + cycle_ns
            done = finish + (star if r else 0)
            if due > done:
                idle = min(idle, due - done)
                over = oversleep(due - done, sleep_asked, sleep_over) + shift
                u = draw(seed, _WAKE, cycle, r)
                z = table_q16(u, normal, normal_slope)
                over += (spread * (-z if u >> 31 else z)) >> 16
                wake[r] = due + max(over, 0)
            else:
                idle = 0
                wake[r] = done
        if stall_below and draw(seed, _STALL, cycle, 0) < stall_below:  # the machine stands still for everybody
            length = table_q16(draw(seed, _STALL_LENGTH, cycle, 0), exponential, exponential_slope)
            for r in range(ranks):
                wake[r] += (stall * length) >> 16
        if left:
            continue
        # the step is over: main threads notice at their next poll, and go on (docs/validation.md 3)
        longest = 0
        for r in range(ranks):
            submitted[r, step] = start[r] + duration[r, step]
            at = submitted[r, step]
            done = finish + (star if r else 0)
            if at < done:
                at += -(-(done - at) // poll) * poll
            notices[r] = at
            turn[r] = r
            burst = notice * units
            if computes and step + 1 < steps:
                burst += gap[r, step + 1] + duration[r, step + 1]
            longest = max(longest, burst)
        for i in range(1, ranks):  # in order of noticing
            r = turn[i]
            j = i
            while j > 0 and notices[turn[j - 1]] > notices[r]:
                turn[j] = turn[j - 1]
                j -= 1
            turn[j] = r
        lanes = 1 if crowded and longest <= cycle_ns and ranks * longest > idle else min(cores, ranks)
        free = np.zeros(lanes, np.int64)
        for i in range(ranks):
            r = turn[i]
            lane = 0
            for j in range(1, lanes):
                if free[j] < free[lane]:
                    lane = j
            end[r, step] = max(notices[r], free[lane]) + notice * units
            free[lane] = end[r, step]
            if computes and step + 1 < steps:
                free[lane] += gap[r, step + 1] + duration[r, step + 1]
        step += 1
        if step < steps:
            for r in range(ranks):
                busy[r] = end[r, step - 1] - notice * units
                start[r] = end[r, step - 1] + gap[r, step]
    return cycle, slow_cycles
