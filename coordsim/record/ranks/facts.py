"""What is known of a merged run beside its trace, for a manifest: ranks, clocks, gaps, and which tensors came last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from coordsim.protocol.planes import PLANES
from coordsim.record.ranks.reader import RankRecord
from coordsim.record.run_facts import ClockFacts, LastTensor, RunFacts, RunKind, WaitedFor

_WHY_UNSEEN = (
    "no collective of DDP's or FSDP's was seen: what the script reduces by itself, with its waits for other ranks, is "
    "in the part in which it does that"
)
LAST_TENSORS = 3
"""Tensors named for each rank that came last."""

_ALLGATHER = 1
"""Of :class:`coordsim.protocol.messages.Op`, which this room does not know."""

_WHY = {
    "input_stall": "nobody marked where forward begins: its time is part of backward",
    "forward": "nobody marked where backward begins: its time is part of backward",
    "fusion_copy": "on a GPU the loop goes on before copies end: their time is part of exposed_collective",
}
_WHY_SPANS = {
    "input_stall": "no DataLoader was seen: what makes the samples is part of between steps",
    "straggler_wait": "on a GPU nobody saw when collectives ended: waits are part of what the host did meanwhile",
}
_WHY_NOT_NEGOTIATED = _WHY | {
    "straggler_wait": _WHY_SPANS["straggler_wait"],
    "fusion_copy": "nobody saw when buckets were filled: its time is part of what comes after",
    "exposed_collective": "nobody saw when collectives ended (on a GPU, or a reduction of DDP's that no hook can "
    "stand in for): its time is part of optimizer",
}


def facts_of(
    records: Sequence[RankRecord], steps: range, without_steps: Sequence[int], missing: Collection[str],
    shown_rank: int | None = None,
) -> RunFacts:  # fmt: skip
    """``records``: those that were merged; ``without_steps``: ranks left out, for they ended none; ``missing``: parts
    of a step that nobody measured; ``shown_rank``: whose durations the parts are."""
    head = records[0].head
    present = [record.rank for record in records]
    cycles = negotiated(records[0])
    why = _why_missing(records, cycles)
    return RunFacts(
        kind=RunKind.RECORDED, ranks=records[0].ranks, control_plane=control_plane(records[0]), first_step=steps.start,
        control="measured" if cycles else "nobody negotiates, so the three parts of control are 0",
        job=head.get("job"), settings=head.get("settings"),
        hosts={record.rank: record.head.get("host") for record in records},
        ranks_with_details=tuple(record.rank for record in records if record.detailed),
        ranks_absent=tuple(sorted(set(range(records[0].ranks)) - set(present) - set(without_steps))),
        ranks_without_steps=tuple(without_steps),
        clocks={record.rank: ClockFacts(clock_offset(record), _clock_error(record)) for record in records},
        missing={part: why[part] for part in sorted(missing)}, unknown=_damaged(records),
        ended_early=tuple(record.rank for record in records if not record.closed),
        ended_with_error={
            record.rank: record.end["error"] for record in records if record.end and record.end.get("error")
        },
        last_tensors=_last_tensors(records, steps), waited_for=_waited_for(records, steps), shown_rank=shown_rank,
    )  # fmt: skip


def _damaged(records: Sequence[RankRecord]) -> dict[str, str]:
    """Record that is not read to its end -> where it is damaged."""
    return {
        f"rest of {record.path.name}": f"{record.damage}; {record.lost_bytes:,} bytes from there on are left out"
        for record in records if record.damage is not None
    }  # fmt: skip


def _why_missing(records: Sequence[RankRecord], cycles: bool) -> dict[str, str]:
    """Part of a step -> why nobody measured it, if nobody did."""
    why = _WHY if cycles else _WHY_NOT_NEGOTIATED
    if any(step.spans for record in records for step in record.steps):
        why = why | _WHY_SPANS
    if not cycles and not any(record.responses for record in records):
        why = why | dict.fromkeys(("straggler_wait", "fusion_copy", "exposed_collective"), _WHY_UNSEEN)
    return why


def control_plane(record: RankRecord) -> str:
    """Who decides in the job: ``ddp`` is nobody."""
    return str(record.settings.get("control_plane", "cached"))


def negotiated(record: RankRecord) -> bool:
    """Whether ranks agreed on what to reduce; a control plane of a name that is not known is taken to have."""
    kind = PLANES.get(control_plane(record))
    return kind is None or kind.negotiates


def clock_offset(record: RankRecord) -> int:
    """How far rank 0's clock is ahead, ns, as well as that is known."""
    clock = record.clock
    return clock.offset_ns if clock is not None else 0


def readiness(record: RankRecord) -> dict[int, dict[str, int]]:
    """Step -> tensor -> when its gradient was there, ns of the rank's clock: by parameter where that was recorded, else
    by what was submitted."""
    found: dict[int, dict[str, int]] = {}
    for ready in record.ready:
        names = (record.name(each) for each in ready.tensors)
        found[ready.step] = dict(zip(names, ready.stamps_ns, strict=True))
    return found or submissions(record)


def submissions(record: RankRecord) -> dict[int, dict[str, int]]:
    """Step -> what was submitted for negotiation -> when, ns of the rank's clock."""
    found: dict[int, dict[str, int]] = {}
    for cycle in record.cycles:
        of_step = found.setdefault(cycle.step, {})
        for each, at_ns in zip(cycle.popped, cycle.stamps_ns, strict=True):
            of_step[record.name(each)] = at_ns
    return found


def gathers(record: RankRecord) -> bool:
    """Whether parameters are gathered inside forward and backward without negotiation, as FSDP does: ranks wait for
    each other there, before any gradient is ready."""
    return not negotiated(record) and any(each.op == _ALLGATHER for each in record.responses)


def _waited_for(records: Sequence[RankRecord], steps: range) -> tuple[WaitedFor, ...] | None:
    """Ranks that others waited for longest in a step, in its collectives together, beyond the median rank, most often
    first; None where no parameters are gathered."""
    counted = _counted(steps)
    if not all(gathers(record) for record in records) or len(records) < 2:
        return None
    called = [
        {(each.step, each.place): each.copied_in_ns + clock_offset(record) for each in record.responses}
        for record in records
    ]
    waits = {number: [0] * len(records) for number in counted}
    for key in set.intersection(*map(set, called)):
        if key[0] in waits:
            times = [of_rank[key] for of_rank in called]
            waits[key[0]][times.index(max(times))] += max(times) - sorted(times)[(len(times) - 1) // 2]
    longest = Counter(max(range(len(of_step)), key=of_step.__getitem__) for of_step in waits.values())
    return tuple(
        WaitedFor(records[place].rank, times, sum(of_step[place] for of_step in waits.values()) // max(len(counted), 1))
        for place, times in longest.most_common()
    )


def _counted(steps: range) -> range:
    """Without the cold one."""
    return steps[1:] if steps.start == 0 and len(steps) > 1 else steps


def _last_tensors(records: Sequence[RankRecord], steps: range) -> dict[int, tuple[LastTensor, ...]]:
    """Rank -> what came last there, in the steps in which the rank was last; most often first."""
    counted = _counted(steps)
    by_rank = {record.rank: (clock_offset(record), readiness(record)) for record in records}
    last = {
        record.rank: {step.step: step.last_submit_ns + clock_offset(record) for step in record.steps}
        for record in records
    }
    tensors: dict[int, Counter[str]] = {}
    for number in counted:
        rank = max(last, key=lambda each: (last[each].get(number, 0), -each))
        of_step = by_rank[rank][1].get(number)
        if of_step:
            tensors.setdefault(rank, Counter())[max(of_step, key=of_step.__getitem__)] += 1
    return {
        rank: tuple(LastTensor(*counted) for counted in names.most_common(LAST_TENSORS))
        for rank, names in tensors.items()
    }


def _clock_error(record: RankRecord) -> int | None:
    clock = record.clock
    return clock.error_ns if clock is not None else None
