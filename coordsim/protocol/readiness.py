"""The counting table: which names every voter has asked for, and whether they asked for the same thing.

At the coordinator the voters are all ranks; at an inner node of a tree they are the node itself and its
children's subtrees. Source of the checks and their order: docs/horovod.md 3.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from coordsim.protocol.messages import CPU, ZERO_FILLED, Op, Request, Response, respond_to


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
    """(check, voter index, text); the smallest wins, whatever the order of those that disagree with the first."""


class ReadinessTable:
    """Counts requests by name over ``voters`` (ascending ids); a voter that has joined counts as having asked."""

    def __init__(self, voters: Sequence[int]) -> None:
        self.voters = voters
        self._index = {voter: index for index, voter in enumerate(voters)}
        self._rows: dict[str, _Row] = {}  # in order of first request
        self._joined = bytearray(len(voters))
        self._joins = 0
        self.last_joined = -1
        """The rank that joined last, as far as this table knows."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names that wait, in order of first request."""
        return tuple(self._rows)

    @property
    def anybody_joined(self) -> bool:
        return self._joins > 0

    @property
    def everybody_joined(self) -> bool:
        return self._joins == len(self.voters)

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

    def join(self, voter: int) -> None:
        """From now on ``voter`` asks for nothing. Raises ProtocolError when it has joined already."""
        index = self._index[voter]
        if self._joined[index]:
            raise ProtocolError(f"voter {voter} joined twice")
        self._joined[index] = 1
        self._joins += 1

    def completed_by_joins(self) -> list[str]:
        """Names that only voters who have joined did not ask for, in order of first request.

        Horovod re-scans its table in hash order.
        """
        if not self._joins:
            return []
        enough, all_voters = len(self.voters) - self._joins, len(self.voters)
        return [
            name for name, row in self._rows.items()
            if enough <= row.count < all_voters and self._covered(row)
        ]  # fmt: skip

    def forget_joins(self) -> None:
        """Everybody had joined and was told so: all have data again."""
        self._joined = bytearray(len(self.voters))
        self._joins = 0

    def take(self, name: str) -> Agreed:
        """Remove a complete name and say what was agreed."""
        row = self._rows.pop(name)
        with_zeros = row.count < len(self.voters)
        assert not with_zeros or self._covered(row), f"{name!r} taken before every voter asked for it"
        request = row.first
        if row.complaint is not None:
            return Agreed(request, row.complaint[2])
        if request.op in _SPLIT_BY_ROWS and not request.shape:
            return Agreed(request, f"{request.op.name.lower()} of {name!r} needs at least one dimension")
        if with_zeros and request.op not in ZERO_FILLED:
            return Agreed(
                request, f"{request.op.name.lower()} of {name!r}: a rank that has joined has no data for it"
            )
        if request.op is Op.ALLGATHER:
            request = replace(request, shape=(row.rows, *request.shape[1:]))
        return Agreed(request)

    def missing(self) -> dict[str, tuple[int, ...]]:
        """Per name that waits: the voters with data that have not asked for it, ascending."""
        return {name: self.missing_for(name) for name in self._rows}

    def missing_for(self, name: str) -> tuple[int, ...]:
        """The voters with data that have not asked for ``name``, ascending; all of them when nobody has."""
        row = self._rows.get(name)
        absent = bytes(map(max, row.seen, self._joined)) if row else bytes(self._joined)
        found, at = [], absent.find(0)
        while at >= 0:
            found.append(self.voters[at])
            at = absent.find(0, at + 1)
        return tuple(found)

    def __len__(self) -> int:
        return len(self._rows)

    def _covered(self, row: _Row) -> bool:
        """Whether everybody has asked or joined."""
        return all(map(max, row.seen, self._joined))

    def _row(self, voter: int, request: Request) -> _Row:
        index = self._index[voter]
        if self._joined[index]:
            raise ProtocolError(f"voter {voter} asked for {request.name!r} after it had joined")
        row = self._rows.get(request.name)
        if row is None:
            row = _Row(request, voter, bytearray(len(self.voters)))
            self._rows[request.name] = row
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
