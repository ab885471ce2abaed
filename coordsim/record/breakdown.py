"""A step's time, split into ten parts that sum to it to the last nanosecond (docs/semantics.md 7).

One function over the trace, the same for simulated and real runs. Everything before R (the last rank's last
gradient) is compute; the tail [R, C] is walked back from C. Parts say where time went; what a change
*saves* is always a second simulation (:mod:`coordsim.analyse.explain`).

The trace of a recorded run keeps the parts as one stated rank had them (``Trace.own``): its own durations cannot follow
from moments of several ranks, which skew between ranks would cut. They, too, sum to the step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from coordsim.record.trace import Int64, Trace

PARTS = (
    "input_stall", "forward", "backward", "straggler_wait", "cycle_wait", "control_exchange",
    "control_work", "fusion_copy", "exposed_collective", "optimizer",
)  # fmt: skip
RECORDED_PARTS = (
    "between_steps", "input_stall", "forward", "backward", "straggler_wait", "gather_wait", "cycle_wait",
    "control_exchange", "control_work", "fusion_copy", "exposed_collective", "before_optimizer", "optimizer",
)  # fmt: skip
"""The parts of a recorded run in the order in which they are shown; it has only those that its ranks recorded."""
CONTROL_PARTS = ("cycle_wait", "control_exchange", "control_work")
"""What "the control plane costs" means."""


def breakdown(trace: Trace) -> dict[str, Int64]:
    """Part name -> ns, shape [step]; row 0 is the cold step. Sums over parts equal the step times.

    Parts in ``trace.missing`` are left out: nobody measured them, and their time is in the part that comes after."""
    if trace.own:
        return {name: trace.own[name] for name in RECORDED_PARTS if name in trace.own and name not in trace.missing}
    steps = trace.steps
    start, end, collectives = steps["start_ns"], steps["end_ns"], steps["end_collective_ns"]
    ready = steps["ready_last_ns"]
    forward, median = steps["forward_median_ns"], steps["ready_median_ns"]
    parts = {name: np.zeros_like(start) for name in PARTS}
    parts["input_stall"] = start - np.concatenate([[0], end[:-1]])
    parts["forward"] = forward.copy()
    parts["backward"] = median - forward
    parts["straggler_wait"] = ready - start - median
    parts["optimizer"] = end - collectives
    tails = tails_of(trace, ready, collectives)
    for name, column in tails.items():
        parts[name] = column
    return {name: column for name, column in parts.items() if name not in trace.missing}


def tails_of(trace: Trace, begin_ns: Int64, end_ns: Int64) -> dict[str, Int64]:
    """The time from ``begin_ns`` to ``end_ns`` of each step (shape [step], ns since the start of the run) by what the
    control plane and the collectives did in it; nothing where ``end_ns`` is not later."""
    walk = _Walk(trace)
    collectives = trace.steps["end_collective_ns"]
    last = np.searchsorted(trace.responses["end_ns"], collectives, side="right") - 1
    found = {name: np.zeros_like(collectives) for name in _Tail(0, 0).parts}
    for step in range(collectives.size):
        tail = _Tail(int(begin_ns[step]), int(end_ns[step]))
        if end_ns[step] > begin_ns[step] and last[step] >= 0:
            walk.back(tail, int(last[step]))
        else:  # a damaged record may have lost the collective that its step ends with
            tail.add("exposed_collective", int(begin_ns[step]), int(end_ns[step]))
        for name, value in tail.parts.items():
            found[name][step] = value
    return found


def step_times(trace: Trace) -> Int64:
    """E_s - E_(s-1), ns, shape [step]; row 0 is the cold step."""
    return np.diff(trace.steps["end_ns"], prepend=0)


@dataclass(slots=True)
class _Tail:
    """Collects pieces of [R, C], clipped at both ends."""

    ready_ns: int
    until_ns: int
    parts: dict[str, int] = field(
        default_factory=lambda: {
            "cycle_wait": 0, "control_exchange": 0, "control_work": 0, "fusion_copy": 0, "exposed_collective": 0,
        }
    )  # fmt: skip

    def add(self, part: str, begin_ns: int, end_ns: int) -> None:
        self.parts[part] += max(min(end_ns, self.until_ns) - max(begin_ns, self.ready_ns), 0)

    def add_control(self, begin_ns: int, end_ns: int, work_ns: int) -> None:
        """A control phase, of which ``work_ns`` is serial work; R may cut it, and then cuts both alike.

        One that a wait for data has made later is work as a whole: the wait ends by R, and exchanges before it.
        """
        whole = end_ns - begin_ns
        remaining = max(min(end_ns, self.until_ns) - max(begin_ns, self.ready_ns), 0)
        work = work_ns * remaining // whole if whole else 0
        self.parts["control_work"] += work
        self.parts["control_exchange"] += remaining - work


class _Walk:
    """The walk back from C: responses, control phases and waits, until R is reached."""

    def __init__(self, trace: Trace) -> None:
        self._responses = {name: column.tolist() for name, column in trace.responses.items()}
        self._cycles = {name: column.tolist() for name, column in trace.cycles.items()}
        self._first_cycle = trace.cycles["cycle"]
        self._blocking = trace.blocking
        self._last_response: dict[int, int] = {
            cycle: index for index, cycle in enumerate(self._responses["cycle"])
        }

    def back(self, tail: _Tail, response: int) -> None:
        """Split the tail that ends with ``response`` (its row)."""
        now, cycle = self._data(tail, response)
        while cycle >= 0 and now > tail.ready_ns:
            row, later = self._row(cycle)
            enter = self._cycles["enter_last_ns"][row] + later
            finish = self._cycles["finish_enter_last_ns"][row] + later
            finish_shadow = self._cycles["finish_enter_last_shadow_ns"][row] + later
            tail.add("cycle_wait", finish, enter)
            now = finish
            cycle -= 1
            if now <= tail.ready_ns or cycle < 0:
                return
            launched = self._last_response.get(cycle)
            if self._blocking and launched is not None:
                now, cycle = self._data(tail, launched)
            else:
                row, later = self._row(cycle)
                enter = self._cycles["enter_last_ns"][row] + later
                tail.add_control(enter, now, now - finish_shadow)
                now = enter

    def _data(self, tail: _Tail, response: int) -> tuple[int, int]:
        """Back over responses that the stream ran without a pause, then over the control phase that led to the
        first of them. Returns that phase's begin (A_k) and its cycle, or -1 where nobody negotiates."""
        table = self._responses
        while True:
            begin, end = table["begin_ns"][response], table["end_ns"][response]
            copied = begin + table["copy_in_ns"][response]
            reduced = copied + table["collective_ns"][response]
            tail.add("fusion_copy", begin, copied)
            tail.add("exposed_collective", copied, reduced)
            tail.add("fusion_copy", reduced, end)
            cycle, launch = table["cycle"][response], table["launch_ns"][response]
            before = response - 1
            if before < 0 or begin <= tail.ready_ns:
                break
            free = table["end_ns"][before]
            if self._blocking and table["cycle"][before] == cycle:
                tail.add("control_work", free, launch)
            elif free <= launch:
                break
            response = before
        if not self._first_cycle.size:
            return begin, -1
        row, later = self._row(cycle)
        enter = self._cycles["enter_last_ns"][row] + later
        tail.add_control(enter, launch, launch - table["launch_shadow_ns"][response])
        return min(enter, begin), cycle

    def _row(self, cycle: int) -> tuple[int, int]:
        """Row of a cycle in the run-length encoded table, and how much later than the row's first it is."""
        row = int(np.searchsorted(self._first_cycle, cycle, side="right")) - 1
        return row, (cycle - self._cycles["cycle"][row]) * self._cycles["period_ns"][row]
