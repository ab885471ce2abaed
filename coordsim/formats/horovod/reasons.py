"""Why something cannot be known from a timeline: one true sentence for each, from the content of the file."""

from __future__ import annotations

from typing import Any

import numpy as np

from coordsim.formats.horovod import tables as g
from coordsim.formats.horovod.grouped import BARRIER, ERROR, Executing, Grouped, Waiting, class_of

JOIN_TENSOR = "join.noname"
"""Name under which Horovod writes the end of a join; the request of a join is not written."""
_NAMED = 3


def unknown(timeline: Grouped, known: Any) -> dict[str, str]:
    """Return what is not known -> reason.

    ``known`` marks steps in which every rank's last request was counted; None: there is no step.
    """
    reasons = {}
    if known is not None:
        reasons["coordinator_bytes_per_step"] = "a timeline counts requests, not the bytes of their lists"
    if timeline.ranks is None:
        reasons["ranks"] = _no_ranks(timeline)
    if known is not None:
        reasons |= _of_steps(timeline, known)
    ended = at_end(timeline)
    if timeline.incomplete and known is not None:
        reasons["end"] = f"left out: {timeline.incomplete}"
    if ended:
        reasons["at_end"] = ended
    if timeline.stopped:
        reasons["rest"] = timeline.stopped
    if timeline.lost:
        reasons["cut"] = f"the file is cut off: {timeline.lost}"
    return reasons | _of_events(timeline)


def _no_ranks(timeline: Grouped) -> str:
    if timeline.highest_rank is None:
        return "no request of any rank is counted in the file"
    return (
        f"no tensor was agreed of which requests are counted; the highest rank that asked for one is "
        f"{timeline.highest_rank:,}"
    )


def _of_steps(timeline: Grouped, known: Any) -> dict[str, str]:
    reasons, steps = {}, timeline.steps
    tied = known & (steps["last_rank"] < 0)
    if not known.all():
        many = f"{int((~known).sum()):,} of {len(steps):,} steps"
        reasons["last"] = f"not told in {many}: {nobody_last(timeline, known)}"
    elif tied.any():
        many = f"{int(tied.sum()):,} of {len(steps):,} steps"
        reasons["last"] = f"not told in {many}: several ranks were counted in the last cycle"
    kinds = np.unique(steps["set"]).size
    if kinds > 1:
        reasons["steps"] = (
            f"steps are of {kinds:,} kinds, with other tensors or operations each; means of the run are over all of "
            "them, step sets say them apart"
        )
    if why := _no_sizes(timeline):
        reasons["bytes_per_step"] = why
    return reasons


def nobody_last(timeline: Grouped, known: Any) -> str:
    """Return why the last rank cannot be named in the steps that are not ``known``."""
    steps, ranks = timeline.steps[~known], timeline.ranks or 0
    cached = steps["cached"] > 0
    joined = steps["joined"] > 0
    fewer = ~cached & ~joined & (steps["ticks_most"] > 0) & (steps["ticks_least"] < ranks)
    late = ~(cached | joined | fewer)
    stated = [
        (cached, "the cache agreed on some of their tensors, and its hits are counted for no rank"),
        (joined, "a rank had joined (hvd.join), so fewer ranks asked for a tensor than before"),
        (
            fewer,
            f"fewer than {ranks:,} ranks asked for some of their tensors, which are of a process set, or a rank had "
            "joined; the file does not say which",
        ),
        (late, "a tensor was agreed in another cycle than its last request was counted in"),
    ]
    present = [(int(where.sum()), why) for where, why in stated if where.any()]
    if len(present) == 1:
        return present[0][1]
    return "; ".join(f"in {count:,} {why}" for count, why in present)


def _no_sizes(timeline: Grouped) -> str | None:
    """Return why some messages have no size; None if all have one."""
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
    """Return reasons for events that were read and fit nowhere, and for those that were not read."""
    reasons = {}
    if timeline.failed:
        many = f"{timeline.failed:,} tensors"
        reasons["failed"] = f"the operations of {many} were errors; they are messages without a size"
    if timeline.abandoned:
        reasons["abandoned"] = (
            f"{timeline.abandoned:,} times a tensor was negotiated again before an operation of it was recorded; its "
            "step is without it"
        )
    if timeline.unattributed:
        reasons["operations"] = (
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
        reasons["activities"] = f"no version of Horovod is known to write {names}{more}: counted as collective"
    if timeline.foreign:
        kinds = ", ".join(f"{what} ({count:,})" for what, count in list(timeline.foreign.items())[:_NAMED])
        reasons["not_read"] = f"events that Horovod does not write were passed over: {kinds}"
    return reasons


def at_end(timeline: Grouped) -> str | None:
    """Describe what was unfinished at the last event; None if nothing was."""
    end = timeline.at_end
    stated = [_waited(timeline, tensor) for tensor in end.waiting[:_NAMED]]
    stated += [_executed(operation) for operation in end.executing[:_NAMED]]
    hidden = end.waiting_count + end.executing_count - len(stated)
    if not stated:
        return None
    more = f"; {hidden:,} more" if hidden else ""
    return f"with the last event, {'; '.join(stated)}{more}"


def _waited(timeline: Grouped, tensor: Waiting) -> str:
    text = f"{tensor.tensor[:80]!r} had waited {_seconds(tensor.waited_us)} for all ranks to ask for {tensor.operation}"
    if not tensor.asked:
        return f"{text}: which had asked is not counted (cached)"
    absent = not_asked(timeline, tensor)
    text = f"{text}: asked for by {_ranks(tensor.asked)}"
    return text if absent is None else f"{text}, not by {_ranks(absent)}"


def not_asked(timeline: Grouped, tensor: Waiting) -> tuple[int, ...] | None:
    """Return ranks that the tensor waited for; None if the file does not state who takes part in it."""
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
    """Return ranks as ranges: ``rank 3``, ``ranks 0-2, 7``."""
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
