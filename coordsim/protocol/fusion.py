"""Fusion: which agreed tensors share one collective (docs/horovod.md 3.5)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from coordsim.protocol.groups import GroupTable
from coordsim.protocol.messages import Op, Response

ATOMIC_UNIT_BYTES = 64
"""FUSION_BUFFER_ATOMIC_UNIT: with 8-byte elements, a buffer divides evenly over a node's ranks."""

_NO_LIMIT = 1 << 62


def rounded_threshold(threshold_bytes: int, ranks_per_node: int) -> int:
    """The fusion threshold as used: up to a multiple of ``ranks_per_node * 8 * 64`` bytes; 0 stays 0."""
    step = ranks_per_node * 8 * ATOMIC_UNIT_BYTES
    return -(-threshold_bytes // step) * step


def fuse(responses: Iterable[Response], threshold_bytes: int, groups: GroupTable) -> list[Response]:
    """Fuse single-tensor responses, in order, into the list that every rank executes.

    ``threshold_bytes`` is already rounded. Strict groups come out alone, at the place of their first
    member and with members in registration order; only unequal kinds (dtype, scale, ...) split them.
    """
    singles = list(responses)
    if not groups.strict:
        return _greedy(singles, threshold_bytes)
    by_name = {response.names[0]: response for response in singles}
    fused: list[Response] = []
    done: set[str] = set()
    for single in singles:
        name = single.names[0]
        if name in done:
            continue
        unit = [member for member in groups.members(name) if member in by_name]
        done.update(unit)
        fused += _greedy([by_name[member] for member in unit], _NO_LIMIT)
    return fused


def _greedy(singles: list[Response], threshold_bytes: int) -> list[Response]:
    """One pass from the head, looking past tensors of another kind while they would still have fitted."""
    queue = deque(singles)
    fused = []
    while queue:
        head = queue.popleft()
        taken: list[Response] = []
        set_aside: list[Response] = []
        size, skipped = head.nbytes, 0
        while queue and head.op is not Op.ERROR:
            candidate = queue[0]
            if head.fuses_with(candidate) and size + candidate.nbytes <= threshold_bytes:
                size += candidate.nbytes
                taken.append(queue.popleft())
                continue
            skipped += candidate.nbytes
            if size + skipped > threshold_bytes:
                break
            set_aside.append(queue.popleft())
        queue.extendleft(reversed(set_aside))
        fused.append(head.joined_with(taken) if taken else head)
    return fused
