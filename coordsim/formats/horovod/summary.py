"""The content of a timeline as plain data for a screen and for JSON; null where the timeline does not state it."""

from __future__ import annotations

from typing import Any

import numpy as np

from coordsim.formats.horovod import tables as g
from coordsim.formats.horovod.grouped import BARRIER, KIND_NAMES, Grouped, class_of
from coordsim.formats.horovod.reasons import not_asked
from coordsim.formats.horovod.scan import Int64

_SETS = 5
"""Largest number of kinds of steps that are listed, the most frequent first."""
_MOST_RANKS = 1000
"""Largest number of ranks that are listed for one tensor."""


def of_steps(timeline: Grouped, messages: Any, known: Any) -> dict[str, Any]:
    """Summarise a timeline with steps.

    ``messages`` are those of complete steps; ``known`` marks steps in which every rank's last request was counted.
    """
    waits = np.sort(timeline.steps["negotiated"]) / 1e6
    sizes = messages["bytes"][messages["executed"] != timeline.word(BARRIER)]
    unsized, sizes = int((sizes < 0).sum()), np.sort(sizes[sizes >= 0]).tolist()
    return {
        **_head(timeline),
        "steps": len(timeline.steps),
        "tensors": _tensors(timeline),
        "step_sets": step_sets(timeline, messages),
        "messages": len(messages),
        "message_bytes": {
            "min": sizes[0], "median": sizes[(len(sizes) - 1) // 2], "max": sizes[-1]
        } if sizes else None,
        "messages_without_size": unsized,
        **_cycles(timeline),
        "steps_with_last_rank": int((known & (timeline.steps["last_rank"] >= 0)).sum()),
        "last_tensor_negotiated_s": {
            "median": float(waits[(waits.size - 1) // 2]), "p95": float(waits[int((waits.size - 1) * 0.95)]),
            "max": float(waits[-1]),
        },
        **_tail(timeline),
    }  # fmt: skip


def without_steps(timeline: Grouped) -> dict[str, Any]:
    """Summarise a timeline that ends before its first step does."""
    return {
        **_head(timeline), "steps": 0, "tensors": _tensors(timeline), "messages": len(timeline.messages),
        **_cycles(timeline), **_tail(timeline),
    }  # fmt: skip


def _head(timeline: Grouped) -> dict[str, Any]:
    return {"events": timeline.events, "ranks": timeline.ranks}


def _cycles(timeline: Grouped) -> dict[str, Any]:
    return {
        "cycles_marked": timeline.turns if timeline.marked else None,
        "cycles_idle": timeline.idle if timeline.marked else None,
        "loop_blocks": not timeline.asynchronous,
        "libraries": list(timeline.libraries),
    }


def _tail(timeline: Grouped) -> dict[str, Any]:
    return {
        "activities": activities(timeline), "waiting_at_end": waiting(timeline),
        "executing_at_end": executing(timeline), "started_unix_us": timeline.start_epoch_us,
    }  # fmt: skip


def _tensors(timeline: Grouped) -> int:
    """Return the number of tensors that were negotiated or executed."""
    return int((timeline.tensors[:, g.OPERATION] >= 0).sum())


def step_sets(timeline: Grouped, messages: Any) -> list[dict[str, Any]]:
    """Return kinds of steps, distinguished by their tensors and operations; values are means over the steps of each.

    The first step of the file has no begin, so it is in no mean of ``step_s``.
    """
    steps = timeline.steps
    whole = len(steps)
    row = messages["step"]

    def by_step(values: Int64) -> Int64:
        sums = np.zeros(whole, np.int64)
        np.add.at(sums, row, values)
        return sums

    copies = messages["copy_in"] + messages["copy_out"]
    lasted = messages["end"] - messages["launch"]
    # Of an operation that records no collective, what is no copy is taken for it.
    reduced = np.where(messages["collective"] >= 0, messages["collective"], np.maximum(lasted - copies, 0))
    collective_us, copies_us = by_step(reduced), by_step(copies)
    nbytes, unsized = by_step(np.maximum(messages["bytes"], 0)), by_step((messages["bytes"] < 0).astype(np.int64))
    step_us = np.diff(steps["end"], prepend=steps["end"][:1])
    numbers, counts = np.unique(steps["set"], return_counts=True)
    kinds = []
    for place in np.argsort(-counts, kind="stable")[:_SETS].tolist():
        number, where = int(numbers[place]), steps["set"] == numbers[place]
        timed = where & (np.arange(whole) > 0)
        members = timeline.sets[number] if 0 <= number < len(timeline.sets) else None
        operations = [] if members is None else np.unique(messages["executed"][where[row]]).tolist()
        kinds.append({
            "steps": int(counts[place]),
            "tensors": int(steps["tensors"][where][0]),
            "operations": [timeline.dtypes[word] for word in operations],
            "step_s": float(step_us[timed].mean()) / 1e6 if timed.any() else None,
            "collective_s": float(collective_us[where].mean()) / 1e6,
            "copies_s": float(copies_us[where].mean()) / 1e6,
            "bytes": float(nbytes[where].mean()) if not unsized[where].any() else None,
        })  # fmt: skip
    return kinds


def activities(timeline: Grouped) -> list[dict[str, Any]]:
    """Return activities by the time they took, once for each message, over the whole file."""
    totals = timeline.totals
    order = np.argsort(-totals[:, 1], kind="stable")
    return [
        {
            "name": timeline.dtypes[word], "kind": KIND_NAMES[class_of(timeline.dtypes[word])],
            "times": int(totals[word, 0]), "total_s": int(totals[word, 1]) / 1e6,
        }
        for word in order.tolist()[:64]
        if totals[word, 0]
    ]  # fmt: skip


def waiting(timeline: Grouped) -> list[dict[str, Any]]:
    """Return tensors that some ranks had requested and others had not at the end of the file, the longest wait
    first."""
    return [
        {
            "tensor": tensor.tensor, "operation": tensor.operation, "waited_s": tensor.waited_us / 1e6,
            "asked": list(tensor.asked[:_MOST_RANKS]) if tensor.asked else None,
            "not_asked": None if (absent := not_asked(timeline, tensor)) is None else list(absent[:_MOST_RANKS]),
        }
        for tensor in timeline.at_end.waiting
    ]  # fmt: skip


def executing(timeline: Grouped) -> list[dict[str, Any]]:
    """Return operations that had begun (or were agreed) and had not ended at the end of the file."""
    return [
        {
            "operation": operation.operation, "activity": operation.activity, "began": operation.began,
            "lasted_s": operation.lasted_us / 1e6, "tensors": list(operation.tensors), "count": operation.count,
        }
        for operation in timeline.at_end.executing
    ]  # fmt: skip
