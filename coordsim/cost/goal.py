"""Exchange programs as GOAL text, the input language of LogGOPSim.

GOAL (Group Operation Assembly Language; Hoefler, Siebert, Lumsdaine, ICPP'09) lists for each rank its sends,
receives and computations and which of them must wait for which. The form written and read here is the one that
LogGOPSim's ``txt2bin`` takes (github spcl/LogGOPSim, ``txt2bin.re``)::

    num_ranks 2

    rank 0 {
    l1: recv 17b from 1 tag 0
    l2: calc 560
    l2 requires l1
    }

Times are ns. What the exchange programs (``coordsim/cost/programs.py``) say maps to it like this:

- A send, a receive and work are one line each, in program order: every line requires the one before.
- A receive-all is one ``recv`` for each source, all after the same line and in no order among themselves; what a
  message costs beyond o (work on its payload, its time on the root's NIC) is a ``calc`` that requires it; a
  ``calc 0`` that requires all of them ends it. A serial CPU that serves what has come is done with them at the same
  time, in whatever order it takes them (docs/semantics.md 4.1).
- A rank that enters later than at 0 begins with a ``calc``.
- Exchanges that follow one another have tags 0, 1, ...
- A combination in the switches (``Combine``) has no form in GOAL and is refused.

GOAL knows no network: the text's first lines, comments, name the one that it was made for. A replay that gives a
send max(o, xfer) of the CPU, its message o + L + xfer and a receive o gives this project's times to the nanosecond.
LogGOPSim itself frees a sender's CPU after o and makes the next send wait for the NIC instead.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Generator, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from coordsim.cost.network import LogGP
from coordsim.cost.programs import Combine, Program, Recv, RecvAll, Send, Work
from coordsim.errors import InputError, Refused

Kind: TypeAlias = Literal["send", "recv", "calc"]
_Result = TypeVar("_Result")
Talk: TypeAlias = Generator[Any, Any, _Result]
"""The work of one rank; it yields whenever the rank waits for messages."""


@dataclass(frozen=True, slots=True)
class GoalOp:
    """One operation of one rank."""

    kind: Kind
    size: int
    """Bytes of a message, or ns of a computation."""
    peer: int = -1
    """The other rank of a message."""
    tag: int = 0
    requires: tuple[int, ...] = ()
    """Places, in the same rank's list, of the operations that must end before; all are smaller than its own place."""

    def __str__(self) -> str:
        if self.kind == "calc":
            return f"calc {self.size}"
        return f"{self.kind} {self.size}b {'to' if self.kind == 'send' else 'from'} {self.peer} tag {self.tag}"


@dataclass(frozen=True, slots=True)
class Goal:
    """A schedule for all ranks."""

    ranks: tuple[tuple[GoalOp, ...], ...]
    """Operations, shape [rank][operation]."""

    def text(self, comments: Iterable[str] = ()) -> str:
        """Return the schedule as GOAL text; ``comments`` come first, one line each."""
        lines = [f"// {comment}" for comment in comments]
        lines.append(f"num_ranks {len(self.ranks)}")
        for rank, ops in enumerate(self.ranks):
            lines += ["", f"rank {rank} {{"]
            for place, op in enumerate(ops):
                lines.append(f"l{place + 1}: {op}")
                lines += [f"l{place + 1} requires l{before + 1}" for before in op.requires]
            lines.append("}")
        return "\n".join(lines) + "\n"


class HasRank(Protocol):
    """An endpoint of an exchange."""

    @property
    def rank(self) -> int: ...


class Recorder:
    """Runs exchange programs of all ranks together, without a clock, and records what every rank does.

    Programs receive payloads while they run, and sizes travel with payloads, so no program can be written down alone.
    """

    def __init__(self, network: LogGP, starts_ns: Sequence[int]) -> None:
        """``starts_ns`` is when each rank enters, ns, shape [rank]. Raises InputError for a negative value."""
        self.network = network
        self._ops: list[list[GoalOp]] = [[] for _ in starts_ns]
        self._before: list[tuple[int, ...]] = [() for _ in starts_ns]  # what the next operation requires
        self._tags: dict[Hashable, int] = {}
        self._sent: dict[tuple[int, Hashable, int], deque[tuple[int, Any]]] = defaultdict(deque)
        self._missing: dict[int, tuple[Hashable, set[int]]] = {}  # of ranks that wait
        self._runnable: deque[int] = deque()
        for rank, start_ns in enumerate(starts_ns):
            if start_ns < 0:
                raise InputError.one("starts_ns", str(rank), start_ns, "a rank cannot enter before time 0")
            self._calc(rank, start_ns)

    def together(self, talks: Sequence[Talk[_Result]]) -> list[_Result]:
        """Run one generator for each rank until all have ended; return their results in rank order, shape [rank].

        Raises RuntimeError when ranks wait for messages that no rank sends.
        """
        results: dict[int, _Result] = {}
        self._runnable.extend(range(len(talks)))
        while self._runnable:
            rank = self._runnable.popleft()
            try:
                next(talks[rank])
            except StopIteration as stop:
                results[rank] = stop.value
        if len(results) < len(talks):
            raise RuntimeError(f"ranks {sorted(set(range(len(talks))) - set(results))} wait for ever")
        return [results[rank] for rank in range(len(talks))]

    def run(self, me: HasRank, program: Program, tag: Hashable) -> Talk[Any]:
        """Run one program at one rank. ``tag`` identifies the exchange and is the same on all ranks.

        The method has the interface of the event engine (``Interpreter.run``). Raises Refused for a combination in the
        switches.
        """
        rank, result = me.rank, None
        while True:
            try:
                op = program.send(result)
            except StopIteration as stop:
                return stop.value
            result = None
            match op:
                case Send(target, nbytes, payload):
                    self._line(rank, GoalOp("send", nbytes, target, self._tag(tag), self._before[rank]))
                    self._deliver(rank, target, tag, nbytes, payload)
                case Recv(source):
                    yield from self._wait(rank, tag, {source})
                    nbytes, result = self._take(rank, tag, source)
                    self._line(rank, GoalOp("recv", nbytes, source, self._tag(tag), self._before[rank]))
                case RecvAll():
                    result = yield from self._take_all(rank, tag, op)
                case Work(ns):
                    self._calc(rank, ns)
                case Combine():
                    message = "GOAL knows send, recv and calc; an exchange that the switches combine is none of them"
                    raise Refused.one("GOAL", "cluster.control.and_reduce", "in-network", message)

    def goal(self) -> Goal:
        """Return everything recorded so far."""
        return Goal(tuple(tuple(ops) for ops in self._ops))

    def _take_all(self, rank: int, tag: Hashable, op: RecvAll) -> Talk[dict[int, Any]]:
        yield from self._wait(rank, tag, set(op.sources))
        first, ends, received = self._before[rank], [], {}
        for source in sorted(op.sources):
            nbytes, received[source] = self._take(rank, tag, source)
            end = self._line(rank, GoalOp("recv", nbytes, source, self._tag(tag), first))
            more_ns = self.network.root_service_ns(nbytes) - self.network.overhead_ns if op.root else 0
            more_ns += op.work(received[source]) if op.work is not None else 0
            if more_ns:
                end = self._line(rank, GoalOp("calc", more_ns, requires=(end,)))
            ends.append(end)
        if len(ends) > 1:
            self._line(rank, GoalOp("calc", 0, requires=tuple(ends)))
        return received

    def _wait(self, rank: int, tag: Hashable, sources: set[int]) -> Talk[None]:
        missing = {source for source in sources if not self._sent.get((rank, tag, source))}
        if missing:
            self._missing[rank] = tag, missing
            yield

    def _deliver(self, source: int, target: int, tag: Hashable, nbytes: int, payload: Any) -> None:
        self._sent[target, tag, source].append((nbytes, payload))
        wanted, missing = self._missing.get(target, (None, set()))
        if wanted == tag and source in missing:
            missing.remove(source)
            if not missing:
                del self._missing[target]
                self._runnable.append(target)

    def _take(self, rank: int, tag: Hashable, source: int) -> tuple[int, Any]:
        messages = self._sent[rank, tag, source]
        message = messages.popleft()
        if not messages:
            del self._sent[rank, tag, source]
        return message

    def _calc(self, rank: int, ns: int) -> None:
        if ns:
            self._line(rank, GoalOp("calc", ns, requires=self._before[rank]))

    def _line(self, rank: int, op: GoalOp) -> int:
        place = len(self._ops[rank])
        self._ops[rank].append(op)
        self._before[rank] = (place,)
        return place

    def _tag(self, tag: Hashable) -> int:
        return self._tags.setdefault(tag, len(self._tags))


_NUM_RANKS = re.compile(r"num_ranks\s+(\d+)")
_RANK = re.compile(r"rank\s+(\d+)\s*\{")
_OP = re.compile(
    r"([A-Za-z]\w*)\s*:\s*"
    r"(?:(calc)\s+(\d+)|(send|recv)\s+(\d+)\s*b\s+(to|from)\s+(\d+)(?:\s+tag\s+(\d+))?)(?:\s+(?:cpu|nic)\s+0)*"
)
_REQUIRES = re.compile(r"([A-Za-z]\w*)\s+requires\s+([A-Za-z]\w*)")


def parse(text: str, where: str = "GOAL") -> Goal:
    """Read the schedule in ``text``; ``where`` names it in errors.

    The parser reads what :meth:`Goal.text` writes, and comments, labels of any name, tags left out and ``cpu 0``.
    Raises InputError with the line for other features of GOAL (``irequires``, ``-1`` for any source, several CPUs,
    lines without a label), for lines that are not GOAL, for unknown or repeated labels, and for ranks that are missing
    or out of range.
    """
    return _Parser(where).read(text)


class _Parser:
    """One pass over the lines; a schedule is a list of lists until it is complete."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._number = 0
        self._line = ""
        self._ranks: list[list[GoalOp] | None] = []
        self._rank = -1
        self._labels: dict[str, int] = {}

    def read(self, text: str) -> Goal:
        for self._number, self._line in enumerate((raw.strip() for raw in text.splitlines()), 1):
            if self._line and not self._line.startswith("//"):
                self._statement()
        if self._rank >= 0:
            raise self._wrong(f"ends inside rank {self._rank}")
        missing = [rank for rank, ops in enumerate(self._ranks) if ops is None]
        if missing or not self._ranks:
            raise self._wrong(f"no rank {missing[0]}" if missing else "no num_ranks")
        return Goal(tuple(tuple(ops or ()) for ops in self._ranks))

    def _statement(self) -> None:
        line = self._line
        if self._rank >= 0:
            if line == "}":
                self._rank = -1
            elif match := _OP.fullmatch(line):
                self._operation(match)
            elif match := _REQUIRES.fullmatch(line):
                self._dependency(match[1], match[2])
            else:
                raise self._wrong("neither an operation nor a dependency")
        elif (match := _NUM_RANKS.fullmatch(line)) and not self._ranks:
            self._ranks = [None] * int(match[1])
        elif match := _RANK.fullmatch(line):
            self._open(int(match[1]))
        else:
            raise self._wrong("neither num_ranks nor the beginning of a rank")

    def _open(self, rank: int) -> None:
        if rank >= len(self._ranks) or self._ranks[rank] is not None:
            raise self._wrong("the rank is out of range or was there before")
        self._rank, self._labels, self._ranks[rank] = rank, {}, []

    def _operation(self, match: re.Match[str]) -> None:
        label, calc, calc_ns, kind, nbytes, way, peer, tag = match.groups()
        if label in self._labels:
            raise self._wrong(f"the label {label} was there before")
        self._labels[label] = len(self._ops)
        if calc is not None:
            self._ops.append(GoalOp("calc", int(calc_ns)))
        elif (kind, way) in (("send", "to"), ("recv", "from")) and int(peer) < len(self._ranks):
            self._ops.append(GoalOp("send" if kind == "send" else "recv", int(nbytes), int(peer), int(tag or 0)))
        else:
            raise self._wrong("no such rank" if int(peer) >= len(self._ranks) else f"a {kind} is not {way} a rank")

    def _dependency(self, label: str, before: str) -> None:
        for place in (label, before):
            if place not in self._labels:
                raise self._wrong(f"unknown label {place}")
        later, earlier = self._labels[label], self._labels[before]
        if earlier >= later:
            raise self._wrong("an operation can only require one that stands before it")
        op = self._ops[later]
        self._ops[later] = GoalOp(op.kind, op.size, op.peer, op.tag, (*op.requires, earlier))

    @property
    def _ops(self) -> list[GoalOp]:
        ops = self._ranks[self._rank]
        assert ops is not None
        return ops

    def _wrong(self, message: str) -> InputError:
        return InputError.one(self._where, f"line {self._number}", self._line, f"{self._line!r}: {message}")
