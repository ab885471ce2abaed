"""A recorded run's control plane as GOAL: the messages of its own steps, on its own links."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coordsim.analyse.messages import Program, Replayed, Turn, replayed
from coordsim.errors import InputError
from coordsim.protocol.links import FRAME
from coordsim.record.files import whole_file
from coordsim.record.ranks import RankRecord
from coordsim.record.ranks.facts import clock_offset
from coordsim.record.ranks.format import NULL


def goal(records: Sequence[RankRecord], wanted: range, path: Path, limit: int) -> tuple[str, list[str]]:
    """Write the control messages of the steps ``wanted``, those that fit. Returns what, and what is not in it.

    Raises InputError for a run whose messages are not known, and where not even one step fits.
    """
    found = replayed(records)
    turns = [turn for turn in found.turns if turn.step in wanted]
    known = wanted if found.stopped_in is None else range(wanted.start, min(wanted.stop, found.stopped_in))
    if not known or not turns:
        message = found.stopped or "no cycle of these steps is in the record of every rank"
        raise InputError.one(str(records[0].path.parent), "", None, f"the protocol, replayed, differs: {message}"
                             if found.stopped else message)  # fmt: skip
    program = Program(found.ranks, found.radix, _begin(records, known, turns))
    fitting, count = 0, 0
    for place, turn in enumerate(turns):
        if turn.step not in known:
            break
        program.turn(turn)
        last = place + 1 == len(turns) or turns[place + 1].step != turn.step
        if program.operations + found.ranks > limit:  # each may end with a calculation
            break
        if last:
            fitting, count = place + 1, turn.step + 1 - known.start
    if not fitting:
        raise InputError.one("--max-events", "", limit, "not even one step fits")
    taken = known[:count]
    made = program.goal(fitting, [_end(record, taken[-1]) for record in records])
    told = _told(found, turns[:fitting])
    told += [f"left out for size: {len(known) - count:,} steps"] if count < len(known) else []
    if len(known) < len(wanted):
        told.append(f"left out: steps {known.stop} to {wanted.stop - 1}, where the replay differs ({found.stopped})")
    head = [f"coordsim: control messages of steps {taken.start} to {taken[-1]} of {records[0].path.parent.name}", *told]
    with whole_file(path) as fresh:
        fresh.write_text(made.text(map(_one_line, head)), encoding="utf-8")
    return f"{sum(map(len, made.ranks)):,} operations of {found.ranks:,} ranks in {count:,} steps", told


def _begin(records: Sequence[RankRecord], steps: range, turns: Sequence[Turn]) -> int:
    """When the first of ``steps`` began, or else what is known of it, ns on rank 0's clock."""
    starts = [
        step.start_ns + clock_offset(record)
        for record in records for step in record.steps if step.step == steps.start and step.start_ns != NULL
    ]  # fmt: skip
    return min([*starts, *(each.entered_ns for each in turns[0].passages)])


def _end(record: RankRecord, number: int) -> int:
    """When the rank's step was over, ns on rank 0's clock; where nobody marked it, 0."""
    ends = [step.end_ns for step in record.steps if step.step == number and step.end_ns != NULL]
    return ends[0] + clock_offset(record) if ends else 0


def _told(found: Replayed, turns: Sequence[Turn]) -> list[str]:
    cycles = turns[-1].cycle + 1 - turns[0].cycle - len(turns)
    told = ["left out: reductions and what they send; each rank calculates meanwhile, while others are late, too"]
    rings = [passage.rings for turn in turns for passage in turn.passages]
    if None in rings:
        told.append("left out: what wakes idle ranks, which this record does not count")
    elif any(rings):
        woken = sum(each or 0 for each in rings)
        told.append(f"left out: {woken:,} messages of {FRAME.size} bytes that woke ranks; these enter by a calc")
    if cycles:
        told.append(f"left out: {cycles:,} cycles that some rank's record lacks")
    if found.counted:
        told.append("sizes follow from what was submitted, small reductions that travelled with a bit vector included; "
                    "they add up to what each rank counted in each cycle")  # fmt: skip
    else:
        told.append("sizes follow from what was submitted; without small reductions that travel with a bit vector, "
                    "which this record does not count")  # fmt: skip
    return told


def _one_line(text: str) -> str:
    return " ".join(text.split())
