"""A recorded run's control plane as a program for each rank: send, receive, calculate (``coordsim/cost/goal.py``).

A rank takes and sends one message after another, as the backend's loop does: from its children in rank order, to its
parent, from it, to its children. Between messages it calculates for as long as the record says: until it entered the
cycle, in the protocol's own code, and until what was agreed on was done. Messages have the size that they have on a
connection, frame included.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordsim.analyse.messages.job import Sweep
from coordsim.analyse.messages.replayed import Passage, Turn
from coordsim.cost.goal import Goal, GoalOp, Kind
from coordsim.protocol.links import FRAME
from coordsim.protocol.negotiator import tree_children, tree_parent


class Program:
    """The program of all ranks; it grows by one turn at a time. Time between turns is each rank's own calculation."""

    def __init__(self, ranks: int, radix: int, began_ns: int) -> None:
        """Start all ranks at ``began_ns``, on rank 0's clock."""
        self._ranks = [_Rank(began_ns, rank, ranks, radix) for rank in range(ranks)]
        self._tags = 0

    @property
    def operations(self) -> int:
        """Number of operations of all ranks so far."""
        return sum(len(rank.ops) for rank in self._ranks)

    def turn(self, turn: Turn) -> None:
        """Append what every rank does in its next cycle."""
        for rank, passage in zip(self._ranks, turn.passages, strict=True):
            rank.append(passage, turn.sweeps, self._tags)
        self._tags += len(turn.sweeps)

    def goal(self, turns: int, ends_ns: Sequence[int]) -> Goal:
        """Return the first ``turns`` turns, after which each rank calculates until its entry of ``ends_ns``."""
        return Goal(tuple(rank.ops_until(turns, end_ns) for rank, end_ns in zip(self._ranks, ends_ns, strict=True)))


class _Rank:
    """The operations of one rank."""
    def __init__(self, began_ns: int, rank: int, ranks: int, radix: int) -> None:
        self.ops: list[GoalOp] = []
        self._rank = rank
        self._parent = tree_parent(rank, radix) if rank else -1
        self._children = tree_children(rank, ranks, radix)
        self._at_ns = began_ns
        self._owed_ns = 0
        """Calculation that is not written yet, since successive calculations are written as one."""
        self._turns: list[tuple[int, int, int]] = [(0, began_ns, 0)]
        """State after each turn: number of operations, the rank's time, calculation not written."""

    def append(self, passage: Passage, sweeps: Sequence[Sweep], tag: int) -> None:
        """Append one cycle; ``tag`` is the tag of its first sweep."""
        self._owed_ns += max(passage.entered_ns - self._at_ns, 0)
        work_ns = passage.work_ns
        for number, sweep in enumerate(sweeps):
            for peer in self._children if sweep.up else (self._parent,) if self._rank else ():
                self._append_message("recv", sweep, peer, tag + number)
            if sweep.decides and self._children and (sweep.up or not self._rank):
                self._owed_ns, work_ns = self._owed_ns + work_ns, 0
            for peer in self._children if not sweep.up else (self._parent,) if self._rank else ():
                self._append_message("send", sweep, peer, tag + number)
        self._owed_ns += work_ns + passage.finished_ns - passage.left_ns
        self._at_ns = max(passage.finished_ns, self._at_ns)
        self._turns.append((len(self.ops), self._at_ns, self._owed_ns))

    def ops_until(self, turns: int, end_ns: int) -> tuple[GoalOp, ...]:
        """Return the operations of the first ``turns`` turns, and a calculation until ``end_ns``."""
        count, at_ns, owed_ns = self._turns[turns]
        rest_ns = owed_ns + max(end_ns - at_ns, 0)
        rest = [GoalOp("calc", rest_ns, requires=(count - 1,) if count else ())] if rest_ns else []
        return (*self.ops[:count], *rest)

    def _append_message(self, kind: Kind, sweep: Sweep, peer: int, tag: int) -> None:
        if self._owed_ns:
            self._append_op("calc", self._owed_ns)
            self._owed_ns = 0
        nbytes = sweep.nbytes_R[max(peer, self._rank)] + FRAME.size
        self._append_op(kind, nbytes, peer, tag)

    def _append_op(self, kind: Kind, size: int, peer: int = -1, tag: int = 0) -> None:
        self.ops.append(GoalOp(kind, size, peer, tag, (len(self.ops) - 1,) if self.ops else ()))
