"""The counting table: which names every voter has asked for, and whether they asked for the same thing.

At the coordinator the voters are all ranks; at an inner node of a tree they are the node itself and its
children's subtrees. Source of the checks and their order: docs/horovod.md 3.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from coordsim.protocol.messages import CPU, Op, Request, Response, respond_to


class ProtocolError(RuntimeError):
    """A peer broke the protocol (not: a user's tensors disagree, which is an ERROR response)."""


_SPLIT_BY_ROWS = frozenset({Op.ALLGATHER, Op.REDUCESCATTER})
"""Operations that join or split the first dimension, so there must be one."""


def _shapes_agree(first: Request, other: Request) -> bool:
    if first.op is Op.ALLGATHER:
        return len(first.shape) == len(other.shape) and first.shape[1:] == other.shape[1:]
    return first.shape == other.shape


_CHECKS: tuple[tuple[str, Callable[[Request, Request], bool], Callable[[Request], object]], ...] = (
    ("Mismatched data types", lambda a, b: a.dtype == b.dtype, lambda r: r.dtype.name.lower()),
    ("Mismatched operations", lambda a, b: a.op == b.op, lambda r: r.op.name.lower()),
    ("Mismatched tensor shapes", _shapes_agree, lambda r: list(r.shape)),
    (
        "Mismatched prescale and/or postscale factors",
        lambda a, b: (a.prescale, a.postscale) == (b.prescale, b.postscale),
        lambda r: (r.prescale, r.postscale),
    ),
    ("Mismatched reduction operation", lambda a, b: a.reduce_op == b.reduce_op, lambda r: r.reduce_op.name),
    ("Mismatched broadcast root ranks", lambda a, b: a.root_rank == b.root_rank, lambda r: r.root_rank),
    (
        "Mismatched CPU/GPU device selection",
        lambda a, b: (a.device == CPU) == (b.device == CPU),
        lambda r: "CPU" if r.device == CPU else "GPU",
    ),
    ("Mismatched group members or their order", lambda a, b: a.group == b.group, lambda r: f"{r.group:#x}"),
)


@dataclass(frozen=True, slots=True)
class Agreed:
    """A name that every voter has asked for."""

    request: Request
    """What they asked for; of an allgather the first extents are summed, so that a subtree speaks as one."""
    error: str = ""
    """Why the requests do not fit together; empty when they do."""

    def response(self) -> Response:
        if self.error:
            return Response(Op.ERROR, (self.request.name,), (0,), error=self.error)
        return respond_to(self.request)


@dataclass(slots=True)
class _Row:
    first: Request
    first_voter: int
    seen: bytearray
    count: int = 0
    rows: int = 0
    """First extents so far, summed; counts for an allgather."""
    complaint: tuple[int, int, str] | None = None
    """(check, voter index, text); the smallest wins, so the text does not depend on arrival order."""


class ReadinessTable:
    """Counts requests by name over ``voters`` (ascending ids)."""

    def __init__(self, voters: Sequence[int]) -> None:
        self.voters = voters
        self._index = {voter: index for index, voter in enumerate(voters)}
        self._rows: dict[str, _Row] = {}

    def add(self, voter: int, request: Request) -> bool:
        """Count one request; True when it was the last one missing. Raises ProtocolError on a second one."""
        row = self._row(voter, request)
        if request is not row.first:
            self._compare(row, self._index[voter], voter, request)
        if request.op is Op.ALLGATHER and request.shape:
            row.rows += request.shape[0]
        return row.count == len(self.voters)

    def add_error(self, voter: int, name: str, reason: str) -> bool:
        """Count a subtree's verdict that its requests for ``name`` disagree."""
        row = self._row(voter, Request(name))
        complaint = (-1, self._index[voter], reason)
        if row.complaint is None or complaint < row.complaint:
            row.complaint = complaint
        return row.count == len(self.voters)

    def take(self, name: str) -> Agreed:
        """Remove a complete name and say what was agreed."""
        row = self._rows.pop(name)
        assert row.count == len(self.voters), f"{name!r} taken before every voter asked for it"
        request = row.first
        if row.complaint is not None:
            return Agreed(request, row.complaint[2])
        if request.op in _SPLIT_BY_ROWS and not request.shape:
            return Agreed(request, f"{request.op.name.lower()} of {name!r} needs at least one dimension")
        if request.op is Op.ALLGATHER:
            request = replace(request, shape=(row.rows, *request.shape[1:]))
        return Agreed(request)

    def missing(self) -> dict[str, tuple[int, ...]]:
        """Per name that waits: the voters that have not asked for it, ascending."""
        return {
            name: tuple(voter for voter, seen in zip(self.voters, row.seen, strict=True) if not seen)
            for name, row in self._rows.items()
        }

    def __len__(self) -> int:
        return len(self._rows)

    def _row(self, voter: int, request: Request) -> _Row:
        row = self._rows.get(request.name)
        if row is None:
            row = _Row(request, voter, bytearray(len(self.voters)))
            self._rows[request.name] = row
        index = self._index[voter]
        if row.seen[index]:
            raise ProtocolError(f"voter {voter} asked twice for {request.name!r} before it was answered")
        row.seen[index] = 1
        row.count += 1
        return row

    def _compare(self, row: _Row, index: int, voter: int, request: Request) -> None:
        for order, (title, agree, show) in enumerate(_CHECKS):
            if not agree(row.first, request):
                complaint = (order, index, (
                    f"{title} for {request.name!r}: rank {row.first_voter} has {show(row.first)}, "
                    f"rank {voter} has {show(request)}"
                ))  # fmt: skip
                if row.complaint is None or complaint < row.complaint:
                    row.complaint = complaint
                return
