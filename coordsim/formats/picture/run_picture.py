"""The picture of a run: steps and their parts, cycles, responses; for a real one also its ranks and tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from coordsim.formats.picture.picture import (
    MAX_EVENTS,
    Event,
    Picture,
    Track,
    arrow,
    bounded,
    counter,
    slice_of,
    tracks_of,
)
from coordsim.formats.picture.rank_events import RankEvents
from coordsim.record.breakdown import breakdown
from coordsim.record.ranks import RankRecord
from coordsim.record.run_facts import RunFacts, RunKind
from coordsim.record.trace import Int64, Kind, Trace

STEPS, CYCLES, RESPONSES = Track("run", "steps"), Track("control", "cycles"), Track("data", "responses")
STEP_PARTS = Track("run", "parts of each step")
WAIT = Track("run", "straggler wait")


def picture(
    trace: Trace, facts: RunFacts, records: Sequence[RankRecord] = (), base_ns: int = 0,
    steps: range | None = None, limit: int = MAX_EVENTS,
) -> Picture:  # fmt: skip
    """Return the picture of a run.

    ``base_ns`` is the trace's time 0 on rank 0's clock. ``steps`` holds the numbers of the steps that are wanted;
    default: all.
    """
    first = facts.first_step
    wanted = [step for step in range(trace.steps["step"].size) if steps is None or first + step in steps]
    run = _Run(trace, first, RankEvents(records, base_ns))
    events, left_out = bounded((run.step(step) for step in wanted), limit)
    about = _about(facts) | {"steps": len(wanted), "first_step": first + wanted[0] if wanted else None}
    return Picture(tracks_of(events, ("run", "control", "data")), events, left_out, _notes(trace, records), about)


def _about(facts: RunFacts) -> dict[str, Any]:
    """Return what the file states of the run: its source, and its number of ranks."""
    simulated = facts.simulated
    said = {
        "source": None if facts.kind is RunKind.SIMULATED else "real run",
        "ranks": facts.ranks if simulated is None else None, "job": facts.job,
        "version": None if facts.provenance is None else facts.provenance.version,
        "scenario_sha256": None if simulated is None else simulated.scenario_sha256,
        "engine": None if simulated is None else simulated.engine,
    }  # fmt: skip
    return {key: value for key, value in said.items() if value is not None}


def _notes(trace: Trace, records: Sequence[RankRecord]) -> list[str]:
    notes = ["the five parts of a step's tail are sums; they are drawn one after another"]
    if trace.missing:
        notes.append(f"parts that nobody measured: {', '.join(sorted(trace.missing))}")
    if not records:
        notes.append("this run keeps no submissions and no names of tensors: of ranks it shows the last one of a step")
    elif any(not record.detailed for record in records):
        rest = sum(not record.detailed for record in records)
        notes.append(f"{rest:,} of {len(records):,} ranks recorded steps only: no submissions of theirs")
    return notes


class _Run:
    """Events of one step at a time, the most informative first."""

    def __init__(self, trace: Trace, first: int, ranks: RankEvents) -> None:
        self._steps = {name: column.tolist() for name, column in trace.steps.items()}
        self._cycles = {name: column.tolist() for name, column in trace.cycles.items()}
        self._responses = {name: column.tolist() for name, column in trace.responses.items()}
        self._parts = {name: column.tolist() for name, column in breakdown(trace).items()}
        count = trace.steps["step"].size
        self._rows = _rows(trace.cycles["step"], count)
        self._of_step = _rows(_steps_of_responses(trace), count)
        self._first = first
        self._ranks = ranks

    def step(self, step: int) -> list[Event]:
        events = [*self._whole(step), *self._split(step), *self._of_cycles(step)]
        events += self._of_responses(step)
        last = int(self._steps["ready_last_rank"][step])
        ready, end = self._steps["ready_last_ns"][step], self._steps["end_collective_ns"][step]
        number = self._first + step
        if self._ranks.has(last):
            events += self._arrow(step, self._ranks.track(last), self._ranks.ready_ns(last, number), ready)
        else:
            track = self._ranks.track(last)
            events.append(slice_of("last ranks", track, "last to be ready", ready, end, step=number))
            events += self._arrow(step, track, ready, ready)
        return events + self._ranks.step(number)

    def _whole(self, step: int) -> Iterator[Event]:
        number = self._first + step
        begin = self._steps["end_ns"][step - 1] if step else 0
        yield slice_of(
            "steps", STEPS, f"step {number}", begin, self._steps["end_ns"][step],
            last_rank=self._steps["ready_last_rank"][step],
        )  # fmt: skip
        yield counter("counters", WAIT, "straggler wait us", begin, self._parts["straggler_wait"][step] / 1000)

    def _split(self, step: int) -> Iterator[Event]:
        at = self._steps["end_ns"][step - 1] if step else 0
        for name, column in self._parts.items():
            took = column[step]
            if took:
                yield slice_of("parts", STEP_PARTS, name.replace("_", " "), at, at + took, ns=took)
            at += took

    def _of_cycles(self, step: int) -> Iterator[Event]:
        table = self._cycles
        for row in self._rows[step]:
            repeat, begin = table["repeat"][row], table["enter_last_ns"][row]
            end = table["leave_last_ns"][row] + (repeat - 1) * table["period_ns"][row]
            kind = Kind(table["kind"][row]).name.lower()
            yield slice_of(
                "cycles", CYCLES, kind if repeat == 1 else f"{kind} x {repeat}", begin, end, cycle=table["cycle"][row],
                last_rank=table["enter_last_rank"][row], requests=table["requests"][row],
                request_bytes=table["request_bytes"][row], hits=table["hits_common"][row],
                responses=table["responses"][row],
            )  # fmt: skip

    def _of_responses(self, step: int) -> Iterator[Event]:
        table = self._responses
        for row in self._of_step[step]:
            begin, end = table["begin_ns"][row], table["end_ns"][row]
            copied = begin + table["copy_in_ns"][row]
            reduced = copied + table["collective_ns"][row]
            yield slice_of(
                "responses", RESPONSES, f"{table['units'][row]} tensors", begin, end, cycle=table["cycle"][row],
                bytes=table["bytes"][row], launch_ns=table["launch_ns"][row],
            )  # fmt: skip
            for name, since, until in (("copy in", begin, copied), ("collective", copied, reduced),
                                       ("copy out", reduced, end)):  # fmt: skip
                if until > since:
                    yield slice_of("parts of responses", RESPONSES, name, since, until)

    def _arrow(self, step: int, track: Track, tail_ns: int, ready_ns: int) -> Iterator[Event]:
        """Return an arrow from the last submission to the first cycle that was entered after it and did something."""
        for row in self._rows[step]:
            entered = self._cycles["enter_last_ns"][row]
            if self._cycles["leave_last_ns"][row] >= ready_ns and self._cycles["kind"][row] != Kind.IDLE:
                yield arrow("last submission", track, tail_ns, CYCLES, max(entered, tail_ns))
                return


def _steps_of_responses(trace: Trace) -> Int64:
    """Return the step of each response; without negotiation it is stored in place of the cycle."""
    if not trace.cycles["cycle"].size:
        return trace.responses["cycle"]
    row = np.searchsorted(trace.cycles["cycle"], trace.responses["cycle"], side="right") - 1
    steps: Int64 = trace.cycles["step"][row]
    return steps


def _rows(step_of_row: Int64, steps: int) -> list[range]:
    """Return the rows of each step; ``step_of_row`` does not decrease."""
    ends = np.searchsorted(step_of_row, np.arange(steps + 1)).tolist()
    return [range(begin, end) for begin, end in pairwise(ends)]
