"""The shared cores, compiled: from one event to the next, integer ns throughout."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coordsim.simulate.shared_cores.problem import Int64
from coordsim.simulate.vector.kernels import compiled

BLOCKED, READY, RUNNING, ASLEEP = 0, 1, 2, 3
_NEVER = 1 << 62


@compiled
def _may_begin(
    g: int, k: int, stage: int, rank: int, now: int, dep: Int64, latency: Int64, finished: Int64, finished_at: Int64,
    counts: Int64, counts_at: Int64,
) -> int:  # fmt: skip
    """When ``rank`` may do ``stage`` of collective ``g`` (number ``k`` of its step); :data:`_NEVER` if that is not
    known yet."""
    after = dep[k, stage, 0 if rank == 0 else 1]
    if after == 0:
        at = finished_at[g, rank, stage]
    elif after == 1:
        left = rank - 1 if rank else finished.shape[1] - 1
        if finished[g, left] < stage + 1:
            return 1 << 62
        at = finished_at[g, left, stage]
    elif after == 2:
        if counts[g, stage] < finished.shape[1]:
            return 1 << 62
        at = counts_at[g, stage]
    else:
        if finished[g, 0] < stage + 1:
            return 1 << 62
        at = finished_at[g, 0, stage]
    return int(max(now, at + latency[k, stage]))


@compiled
def _push(stack: Int64, listed: npt.NDArray[np.bool_], top: int, thread: int) -> int:
    """The new height of the stack; a thread that is on it already stays where it is."""
    if listed[thread]:
        return top
    listed[thread] = True
    stack[top] = thread
    return top + 1


@compiled
def shared_cores(
    host_of: Int64, cores: Int64, slice_ns: int, kind: Int64, which: Int64, times: Int64, workers: int,
    stages: Int64, dep: Int64, cpu: Int64, latency: Int64, begins: Int64, busy: Int64,
) -> int:  # fmt: skip
    """Fill ``begins`` [rank, step, segment + 1] with when each segment begins (the last: the step's end) and ``busy``
    [host] with CPU time; returns the end, or -1 when nobody can go on.

    ``stages`` [collective]: how many; ``dep``, ``cpu`` [collective, stage, 0: root, 1: others].
    """
    ranks, steps, segments = times.shape
    collectives = stages.size
    threads = ranks * (1 + workers)
    most = dep.shape[1]
    total = max(collectives * steps, 1)
    state = np.zeros(threads, np.int64)
    left = np.zeros(threads, np.int64)  # CPU time to the end of what it does
    until = np.full(threads, 1 << 62, np.int64)
    since = np.zeros(threads, np.int64)
    slice_end = np.zeros(threads, np.int64)
    had = np.zeros(threads, np.int64)  # virtual runtime
    least = np.zeros(cores.size, np.int64)
    free = cores.copy()
    step = np.zeros(ranks, np.int64)
    at = np.zeros(ranks, np.int64)  # segment
    waits_for = np.full(ranks, -1, np.int64)
    queued = np.zeros(ranks, np.int64)  # collectives submitted
    taken = np.zeros(ranks, np.int64)  # collectives that a worker has taken
    job = np.full(threads, -1, np.int64)
    stage_of = np.zeros(threads, np.int64)
    finished = np.zeros((total, ranks), np.int64)  # stages, and one for the begin
    finished_at = np.zeros((total, ranks, most + 1), np.int64)
    counts = np.zeros((total, most + 2), np.int64)
    counts_at = np.zeros((total, most + 2), np.int64)
    over = np.zeros((total, ranks), np.int64)
    stack = np.empty(threads, np.int64)  # threads that may be able to go on, each once
    listed = np.zeros(threads, np.bool_)
    now = 0
    running_ranks = ranks
    top = 0
    for r in range(ranks):
        top = _push(stack, listed, top, r)
    while True:
        # whoever can go on, does
        while top:
            top -= 1
            t = stack[top]
            listed[t] = False
            if t < ranks:
                r = t
                if state[t] != BLOCKED:
                    continue
                if waits_for[r] >= 0:
                    if not over[waits_for[r], r]:
                        continue
                    waits_for[r] = -1
                    at[r] += 1
                while step[r] < steps:
                    if at[r] == segments:
                        begins[r, step[r], segments] = now
                        step[r] += 1
                        at[r] = 0
                        continue
                    s = at[r]
                    begins[r, step[r], s] = now
                    if kind[s] <= 1:
                        length = times[r, step[r], s]
                        if length <= 0:
                            at[r] += 1
                            continue
                        h = host_of[r]
                        if kind[s] == 0:
                            state[t] = READY
                            left[t] = length
                            had[t] = max(had[t], least[h])
                        else:
                            state[t] = ASLEEP
                            until[t] = now + length
                        break
                    g = step[r] * collectives + which[s]
                    if kind[s] == 2:
                        queued[r] += 1
                        at[r] += 1
                        for w in range(workers):
                            worker = ranks + r * workers + w
                            if state[worker] == BLOCKED and job[worker] < 0:
                                top = _push(stack, listed, top, worker)
                        continue
                    if over[g, r]:
                        at[r] += 1
                        continue
                    waits_for[r] = g
                    break
                if step[r] == steps and state[t] == BLOCKED and waits_for[r] < 0 and at[r] == 0:
                    at[r] = -1
                    running_ranks -= 1
                continue
            r = (t - ranks) // workers
            if state[t] != BLOCKED:
                continue
            if job[t] < 0:
                if taken[r] >= queued[r]:
                    continue
                job[t] = taken[r]
                taken[r] += 1
                stage_of[t] = 0
                g = job[t]
                finished[g, r] = 1
                finished_at[g, r, 0] = now
                counts[g, 0] += 1
                counts_at[g, 0] = now
                for other in range(ranks, threads):
                    if job[other] == g and other != t and state[other] == BLOCKED:
                        top = _push(stack, listed, top, other)
            g = job[t]
            k = g % collectives
            if stage_of[t] == stages[k]:  # over on this rank
                over[g, r] = 1
                job[t] = -1
                if state[r] == BLOCKED:
                    top = _push(stack, listed, top, r)
                top = _push(stack, listed, top, t)
                continue
            when = _may_begin(g, k, stage_of[t], r, now, dep, latency, finished, finished_at, counts, counts_at)
            if when == 1 << 62:
                continue
            if when > now:
                state[t] = ASLEEP
                until[t] = when
                continue
            state[t] = READY
            left[t] = cpu[k, stage_of[t], 0 if r == 0 else 1]
            had[t] = max(had[t], least[host_of[r]])
        if running_ranks == 0:
            return now
        # cores go to whoever has had least
        for h in range(cores.size):
            while free[h] > 0:
                best = -1
                for t in range(threads):
                    r = t if t < ranks else (t - ranks) // workers
                    if state[t] == READY and host_of[r] == h and (best < 0 or had[t] < had[best]):
                        best = t
                if best < 0:
                    break
                state[best] = RUNNING
                since[best] = now
                slice_end[best] = now + slice_ns
                least[h] = max(least[h], had[best])
                free[h] -= 1
        # the next thing that happens
        nearest = 1 << 62
        for t in range(threads):
            if state[t] == RUNNING:
                end = since[t] + left[t]
                if end > slice_end[t]:
                    end = slice_end[t]
                nearest = min(nearest, end)
            elif state[t] == ASLEEP:
                nearest = min(nearest, until[t])
        if nearest == 1 << 62:
            return -1
        now = max(now, nearest)
        for t in range(threads):
            r = t if t < ranks else (t - ranks) // workers
            if state[t] == ASLEEP and until[t] <= now:
                state[t] = BLOCKED
                if t < ranks:
                    at[r] += 1
                top = _push(stack, listed, top, t)
            elif state[t] == RUNNING and (since[t] + left[t] <= now or slice_end[t] <= now):
                h = host_of[r]
                ran = now - since[t]
                busy[h] += ran
                had[t] += ran
                left[t] -= ran
                free[h] += 1
                if left[t] > 0:
                    state[t] = READY
                    continue
                state[t] = BLOCKED
                top = _push(stack, listed, top, t)
                if t < ranks:
                    at[r] += 1
                    continue
                g = job[t]
                stage_of[t] += 1
                done = stage_of[t]
                finished[g, r] = done + 1
                finished_at[g, r, done] = now
                counts[g, done] += 1
                counts_at[g, done] = now
                for other in range(ranks, threads):
                    if other != t and job[other] == g and state[other] == BLOCKED:
                        top = _push(stack, listed, top, other)
