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
    """Grows by turns; the time before the first, and between them, is each rank's own."""

    def __init__(self, ranks: int, radix: int, began_ns: int) -> None:
        """``began_ns``: when all ranks begin, on rank 0's clock."""
        self._ranks = [_Rank(began_ns, rank, ranks, radix) for rank in range(ranks)]
        self._tags = 0

    @property
    def operations(self) -> int:
        """Of all ranks, so far."""
        return sum(len(each.ops) for each in self._ranks)

    def turn(self, turn: Turn) -> None:
        """What every rank does in its next cycle."""
        for rank, passage in zip(self._ranks, turn.passages, strict=True):
            rank.passes(passage, turn.sweeps, self._tags)
        self._tags += len(turn.sweeps)

    def goal(self, turns: int, ends_ns: Sequence[int]) -> Goal:
        """The first ``turns`` turns; ``ends_ns``: by rank, until when it then calculates."""
        return Goal(tuple(rank.until(turns, end_ns) for rank, end_ns in zip(self._ranks, ends_ns, strict=True)))


class _Rank:
    def __init__(self, began_ns: int, rank: int, ranks: int, radix: int) -> None:
        self.ops: list[GoalOp] = []
        self._rank = rank
        self._parent = tree_parent(rank, radix) if rank else -1
        self._children = tree_children(rank, ranks, radix)
        self._at_ns = began_ns
        self._owed_ns = 0
        """Calculated, and not written yet: calculations that follow one another are one."""
        self._turns: list[tuple[int, int, int]] = [(0, began_ns, 0)]
        """After each turn: operations, the rank's time, what it owes."""

    def passes(self, passage: Passage, sweeps: Sequence[Sweep], tag: int) -> None:
        """``tag``: of the first sweep."""
        self._owed_ns += max(passage.entered_ns - self._at_ns, 0)
        work_ns = passage.work_ns
        for number, sweep in enumerate(sweeps):
            for peer in self._children if sweep.up else (self._parent,) if self._rank else ():
                self._message("recv", sweep, peer, tag + number)
            if sweep.decides and self._children and (sweep.up or not self._rank):
                self._owed_ns, work_ns = self._owed_ns + work_ns, 0
            for peer in self._children if not sweep.up else (self._parent,) if self._rank else ():
                self._message("send", sweep, peer, tag + number)
        self._owed_ns += work_ns + passage.finished_ns - passage.left_ns
        self._at_ns = max(passage.finished_ns, self._at_ns)
        self._turns.append((len(self.ops), self._at_ns, self._owed_ns))

    def until(self, turns: int, end_ns: int) -> tuple[GoalOp, ...]:
        count, at_ns, owed_ns = self._turns[turns]
        rest_ns = owed_ns + max(end_ns - at_ns, 0)
        rest = [GoalOp("calc", rest_ns, requires=(count - 1,) if count else ())] if rest_ns else []
        return (*self.ops[:count], *rest)

    def _message(self, kind: Kind, sweep: Sweep, peer: int, tag: int) -> None:
        if self._owed_ns:
            self._add("calc", self._owed_ns)
            self._owed_ns = 0
        nbytes = sweep.nbytes_R[max(peer, self._rank)] + FRAME.size
        self._add(kind, nbytes, peer, tag)

    def _add(self, kind: Kind, size: int, peer: int = -1, tag: int = 0) -> None:
        self.ops.append(GoalOp(kind, size, peer, tag, (len(self.ops) - 1,) if self.ops else ()))
