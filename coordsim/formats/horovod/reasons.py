"""Why something cannot be known from a timeline: one true sentence for each, from what the file holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from coordsim.formats.horovod import tables as g
from coordsim.formats.horovod.grouped import BARRIER, ERROR, Executing, Grouped, Waiting, class_of

JOIN_TENSOR = "join.noname"
"""Under this name Horovod writes the end of a join; the request of a join is not written."""
_NAMED = 3


def unknown(timeline: Grouped, known: Any) -> dict[str, str]:
    """What is not known -> why. ``known``: steps in which every rank's last request was counted; None: no step."""
    found = {}
    if known is not None:
        found["coordinator_bytes_per_step"] = "a timeline counts requests, not the bytes of their lists"
    if timeline.ranks is None:
        found["ranks"] = _no_ranks(timeline)
    if known is not None:
        found |= _of_steps(timeline, known)
    ended = at_end(timeline)
    if timeline.incomplete and known is not None:
        found["end"] = f"left out: {timeline.incomplete}"
    if ended:
        found["at_end"] = ended
    if timeline.stopped:
        found["rest"] = timeline.stopped
    if timeline.lost:
        found["cut"] = f"the file is cut off: {timeline.lost}"
    return found | _of_events(timeline)


def _no_ranks(timeline: Grouped) -> str:
    if timeline.highest_rank is None:
        return "no request of any rank is counted in the file"
    return (
        f"no tensor was agreed of which requests are counted; the highest rank that asked for one is "
        f"{timeline.highest_rank:,}"
    )


def _of_steps(timeline: Grouped, known: Any) -> dict[str, str]:
    found, steps = {}, timeline.steps
    tied = known & (steps["last_rank"] < 0)
    if not known.all():
        many = f"{int((~known).sum()):,} of {len(steps):,} steps"
        found["last"] = f"not told in {many}: {nobody_last(timeline, known)}"
    elif tied.any():
        many = f"{int(tied.sum()):,} of {len(steps):,} steps"
        found["last"] = f"not told in {many}: several ranks were counted in the last cycle"
    kinds = np.unique(steps["set"]).size
    if kinds > 1:
        found["steps"] = (
            f"steps are of {kinds:,} kinds, with other tensors or operations each; means of the run are over all of "
            "them, step sets say them apart"
        )
    if why := _no_sizes(timeline):
        found["bytes_per_step"] = why
    return found


def nobody_last(timeline: Grouped, known: Any) -> str:
    """Why the last rank is not told in the steps that are not ``known``."""
    steps, ranks = timeline.steps[~known], timeline.ranks or 0
    cached = steps["cached"] > 0
    joined = steps["joined"] > 0
    fewer = ~cached & ~joined & (steps["ticks_most"] > 0) & (steps["ticks_least"] < ranks)
    late = ~(cached | joined | fewer)
    told = [
        (cached, "the cache agreed on some of their tensors, and its hits are counted for no rank"),
        (joined, "a rank had joined (hvd.join), so fewer ranks asked for a tensor than before"),
        (
            fewer,
            f"fewer than {ranks:,} ranks asked for some of their tensors, which are of a process set, or a rank had "
            "joined; the file does not say which",
        ),
        (late, "a tensor was agreed in another cycle than its last request was counted in"),
    ]
    present = [(int(where.sum()), why) for where, why in told if where.any()]
    if len(present) == 1:
        return present[0][1]
    return "; ".join(f"in {count:,} {why}" for count, why in present)


def _no_sizes(timeline: Grouped) -> str | None:
    """Why some messages have no size; None when all have one."""
    messages = timeline.messages
    without = messages[messages["bytes"] < 0]
    if not len(without):
        return None
    failed = int((without["executed"] == timeline.word(ERROR)).sum())
    parts = []
    if failed:
        parts.append(f"{failed:,} operations failed (ERROR), so they moved nothing that is known")
    if timeline.untold_types:
        parts.append("a type is one whose size is not known")
    if len(without) > failed:
        parts.append(
            "the end of an operation has no dtype and shape, as when it failed, or was a broadcast whose root is rank 0"
        )
    return f"the size of {len(without):,} of {len(messages):,} messages is not known: {'; '.join(parts)}"


def _of_events(timeline: Grouped) -> dict[str, str]:
    """What was read and fits nowhere, and what was not read."""
    found = {}
    if timeline.failed:
        found["failed"] = f"the operations of {timeline.failed:,} tensors were errors; they are messages without a size"
    if timeline.abandoned:
        found["abandoned"] = (
            f"{timeline.abandoned:,} times a tensor was negotiated again before an operation of it was recorded; its "
            "step is without it"
        )
    if timeline.unattributed:
        found["operations"] = (
            f"the negotiation of {timeline.unattributed:,} operations is not in the file (recording began in the "
            "middle, or process sets use one name): they are in no step"
        )
    strange = [
        name
        for name, (count, _) in zip(timeline.dtypes, timeline.totals.tolist(), strict=True)
        if count and class_of(name) == g.OTHER
    ]
    if strange:
        more = f" and {len(strange) - _NAMED:,} more" if len(strange) > _NAMED else ""
        names = ", ".join(repr(name[:40]) for name in strange[:_NAMED])
        found["activities"] = f"no version of Horovod is known to write {names}{more}: counted as collective"
    if timeline.foreign:
        kinds = ", ".join(f"{what} ({count:,})" for what, count in list(timeline.foreign.items())[:_NAMED])
        found["not_read"] = f"events that Horovod does not write were passed over: {kinds}"
    return found


def at_end(timeline: Grouped) -> str | None:
    """What was unfinished with the last event, in words; None when nothing was."""
    end = timeline.at_end
    told = [_waited(timeline, tensor) for tensor in end.waiting[:_NAMED]]
    told += [_executed(operation) for operation in end.executing[:_NAMED]]
    hidden = end.waiting_count + end.executing_count - len(told)
    if not told:
        return None
    more = f"; {hidden:,} more" if hidden else ""
    return f"with the last event, {'; '.join(told)}{more}"


def _waited(timeline: Grouped, tensor: Waiting) -> str:
    text = f"{tensor.tensor[:80]!r} had waited {_seconds(tensor.waited_us)} for all ranks to ask for {tensor.operation}"
    if not tensor.asked:
        return f"{text}: which had asked is not counted (cached)"
    absent = not_asked(timeline, tensor)
    text = f"{text}: asked for by {_ranks(tensor.asked)}"
    return text if absent is None else f"{text}, not by {_ranks(absent)}"


def not_asked(timeline: Grouped, tensor: Waiting) -> tuple[int, ...] | None:
    """Ranks that the tensor waited for; None when the file does not say who takes part in it."""
    ranks = timeline.ranks
    if ranks is None or not tensor.asked or (tensor.expected is not None and tensor.expected != ranks):
        return None
    least = timeline.tensors[:, g.TICKS_MOST]
    if tensor.expected is None and bool(((least > 0) & (least < ranks)).any()):
        return None  # some tensors are of process sets, and this one may be
    return tuple(sorted(set(range(ranks)) - set(tensor.asked)))


def _executed(operation: Executing) -> str:
    names = ", ".join(repr(name[:60]) for name in operation.tensors[:_NAMED])
    more = f" and {operation.count - _NAMED:,} more" if operation.count > _NAMED else ""
    since = _seconds(operation.lasted_us)
    if not operation.began:
        return f"{operation.operation} of {names}{more} was agreed {since} ago and had not begun"
    activity = f", in {operation.activity}" if operation.activity else ""
    return f"{operation.operation} of {names}{more} had run {since}{activity}"


def _seconds(us: int) -> str:
    return f"{us / 1e6:,.1f} s" if us >= 1_000_000 else f"{us / 1e3:,.1f} ms"


def _ranks(ranks: tuple[int, ...]) -> str:
    """Ranks as ranges: ``rank 3``, ``ranks 0-2, 7``."""
    spans: list[list[int]] = []
    for rank in ranks:
        if spans and spans[-1][1] == rank - 1:
            spans[-1][1] = rank
        else:
            spans.append([rank, rank])
    shown = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans[:10])
    more = f" and {len(spans) - 10:,} more ranges" if len(spans) > 10 else ""
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {shown}{more}"


__all__ = ["BARRIER", "JOIN_TENSOR", "at_end", "nobody_last", "not_asked", "unknown"]
