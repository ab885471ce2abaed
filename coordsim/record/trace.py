"""The trace: the core of a run record, schema v1, written by both engines (docs/semantics.md 8).

Three tables of int64 columns. ``cycles`` is run-length encoded over idle cycles by :class:`TraceWriter`, the
one encoder that both engines emit through. Two traces are equal when all their tables, ``blocking`` and ``missing``
are: :func:`difference` says where they are not, and :meth:`Trace.digest` is a digest of all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from coordsim.mixing import GOLDEN, mixed

SCHEMA = "coordsim.record/1"

Int64 = npt.NDArray[np.int64]


class Kind(IntEnum):
    """What a cycle did."""

    IDLE = 0
    """Nothing was asked for and nothing agreed (a hit offered and not yet common is still idle)."""
    FAST = 1
    """Agreed without the coordinator."""
    SLOW = 2
    """The coordinator was asked."""
    INVALIDATE = 3
    """Slow, with a second pass that erased cache bits."""


@dataclass(slots=True)
class CycleRow:
    """One turn of the background loop, all ranks together; times in ns since the start of the run."""

    step: int
    kind: int
    enter_first_ns: int
    enter_last_ns: int
    """A_k: when the last rank wakes."""
    enter_last_rank: int
    """Lowest rank that wakes at A_k."""
    leave_last_ns: int
    """max over ranks of T_r: the exchange is over everywhere."""
    leave_last_shadow_ns: int
    """The same with all serial work taken out."""
    finish_enter_last_ns: int
    """F of the *previous* cycle at ``enter_last_rank``; 0 before the first cycle."""
    finish_enter_last_shadow_ns: int
    wake_hash: int
    """64-bit order-sensitive hash of W_r - A_k, as a signed integer."""
    requests: int = 0
    """Requests that rank 0 counted, its own included."""
    request_bytes: int = 0
    """Bytes of the lists that rank 0 took in."""
    hits_common: int = 0
    responses: int = 0
    schedule_hash: int = 0


CYCLE_COLUMNS = (
    "cycle", "repeat", "period_ns", "step", "kind", "enter_first_ns", "enter_last_ns", "enter_last_rank",
    "leave_last_ns", "leave_last_shadow_ns", "finish_enter_last_ns", "finish_enter_last_shadow_ns",
    "wake_hash", "requests", "request_bytes", "hits_common", "responses", "schedule_hash",
)  # fmt: skip
"""Columns of :attr:`Trace.cycles`: number of the first cycle, how many cycles the row stands for and how far they are
apart, then the fields of :class:`CycleRow`."""
RESPONSE_COLUMNS = (
    "cycle", "index", "units", "bytes", "launch_ns", "launch_shadow_ns", "begin_ns", "copy_in_ns",
    "collective_ns", "copy_out_ns", "end_ns",
)  # fmt: skip
"""Columns of :attr:`Trace.responses`: cycle and place in it, units and bytes, then times since the start of the run
(launch, begin, end) and durations (copy in, collective, copy out)."""
STEP_COLUMNS = (
    "step", "start_ns", "forward_median_ns", "ready_median_ns", "ready_last_ns", "ready_last_rank",
    "end_collective_ns", "end_ns",
)  # fmt: skip
"""Columns of :attr:`Trace.steps`."""


class Columns(Mapping[str, Int64]):
    """A table whose columns are made when they are asked for, each time anew: for runs of millions of rows."""

    def __init__(self, names: tuple[str, ...], make: Callable[[str], npt.ArrayLike]) -> None:
        self._names, self._make = names, make

    def __getitem__(self, name: str) -> Int64:
        if name not in self._names:
            raise KeyError(name)
        return np.ascontiguousarray(self._make(name), np.int64)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class Trace:
    """One column set per table; every column has shape [rows] and dtype int64."""

    cycles: Mapping[str, Int64]
    """``CYCLE_COLUMNS``; a row stands for ``repeat`` cycles, ``period_ns`` apart."""
    responses: Mapping[str, Int64]
    """``RESPONSE_COLUMNS``; one row per executed response, in order of execution."""
    steps: Mapping[str, Int64]
    """``STEP_COLUMNS``; row 0 is the cold step. ``forward_median_ns`` and ``ready_median_ns`` count from
    the step's start (lower medians over ranks); the other times from the start of the run."""
    blocking: bool = False
    """Whether a cycle's loop ends with its last collective (MPI and gloo on CPU, and ``ideal``)."""
    missing: frozenset[str] = frozenset()
    """Parts of a step that nobody measured (real runs only); their time is in the part that comes after them."""
    own: Mapping[str, Int64] = field(default_factory=dict)
    """Recorded runs only: the parts of each step as one stated rank had them, ns, by name of the part; they sum to the
    step times (docs/semantics.md 7). Empty for simulated runs, whose parts follow from the three tables."""

    def digest(self) -> str:
        """SHA-256 over everything: two traces have equal digests exactly when :func:`difference` finds none."""
        return self._digest([*sorted(self.missing), *(["blocking: yes"] if self.blocking else [])])

    def has_digest(self, digest: object) -> bool:
        """Whether ``digest`` is that of this trace, as this version writes it or as earlier ones did, in which
        ``blocking`` did not count (the digest of a trace that is not blocking is the same in both)."""
        return digest in (self.digest(), self._digest(sorted(self.missing)))

    def _digest(self, facts: Sequence[str]) -> str:
        """Over the facts and all columns."""
        state = sha256("\0".join([SCHEMA, *facts]).encode())
        for table in (self.cycles, self.responses, self.steps, self.own):
            for name, column in table.items():
                state.update(name.encode())
                state.update(np.ascontiguousarray(column, dtype="<i8").tobytes())
        return state.hexdigest()


def difference(left: Trace, right: Trace) -> str | None:
    """Where two traces first differ, in words; None when they are equal, and so are their digests."""
    for title in ("steps", "responses", "cycles", "own"):
        one, two = getattr(left, title), getattr(right, title)
        if list(one) != list(two):
            return f"{title}: columns {list(one)} against {list(two)}"
        for name, column in one.items():
            if column.shape != two[name].shape:
                return f"{title}: {column.shape[0]} rows against {two[name].shape[0]}"
            unequal = np.flatnonzero(column != two[name])
            if unequal.size:
                row = int(unequal[0])
                return f"{title}[{row}].{name}: {int(column[row])} against {int(two[name][row])}"
    if left.blocking != right.blocking:
        return f"blocking: {left.blocking} against {right.blocking}"
    if left.missing != right.missing:
        return f"missing: {sorted(left.missing)} against {sorted(right.missing)}"
    return None


_MASK = (1 << 64) - 1


def wake_hash(relative_wake_ns: Int64) -> int:
    """64-bit order-sensitive hash of W_r - A_k over ranks (shape [rank]), as a signed integer."""
    with np.errstate(over="ignore"):
        ranks = np.arange(1, relative_wake_ns.size + 1, dtype=np.uint64)
        hashes = mixed(relative_wake_ns.astype(np.uint64) + ranks * GOLDEN)
        return as_signed(int(hashes.sum(dtype=np.uint64)))


def as_signed(value: int) -> int:
    """A 64-bit pattern as the int64 that a column holds."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def schedule_hash(schedule: Sequence[Sequence[str]]) -> int:
    """64-bit hash of a schedule: the names of each response, in order; 0 for an empty one."""
    if not schedule:
        return 0
    text = "\1".join("\0".join(names) for names in schedule)
    return as_signed(int.from_bytes(sha256(text.encode()).digest()[:8], "little"))


class TraceWriter:
    """Collects rows and run-length encodes idle cycles, greedily from the left."""

    def __init__(self) -> None:
        self._cycles: list[tuple[int, ...]] = []
        self._responses: list[tuple[int, ...]] = []
        self._steps: list[tuple[int, ...]] = []
        self._next_cycle = 0
        self._run: CycleRow | None = None
        self._run_first = 0
        self._repeat = 0
        self._period_ns = 0
        self._last_enter_ns = 0

    @property
    def next_cycle(self) -> int:
        """Index of the cycle that the next row describes."""
        return self._next_cycle

    def cycle(self, row: CycleRow, repeat: int = 1, period_ns: int = 0) -> None:
        """One cycle, or ``repeat`` equal idle ones that start ``period_ns`` apart."""
        self._one(row)
        if repeat == 1:
            return
        self._one(_shifted(row, period_ns))
        rest = repeat - 2
        if rest:
            self._period_ns = period_ns
        self._repeat += rest
        self._next_cycle += rest
        self._last_enter_ns += rest * period_ns

    def _one(self, row: CycleRow) -> None:
        distance = row.enter_last_ns - self._last_enter_ns
        if (
            self._run is not None
            and row.kind == Kind.IDLE
            and (self._repeat == 1 or distance == self._period_ns)
            and _shifted(self._run, row.enter_last_ns - self._run.enter_last_ns) == row
        ):
            self._repeat += 1
            self._period_ns = distance
        else:
            self._flush()
            self._run, self._run_first, self._repeat, self._period_ns = row, self._next_cycle, 1, 0
        self._last_enter_ns = row.enter_last_ns
        self._next_cycle += 1

    def _flush(self) -> None:
        row = self._run
        if row is not None:
            self._cycles.append((
                self._run_first, self._repeat, self._period_ns, row.step, row.kind, row.enter_first_ns,
                row.enter_last_ns, row.enter_last_rank, row.leave_last_ns, row.leave_last_shadow_ns,
                row.finish_enter_last_ns, row.finish_enter_last_shadow_ns, row.wake_hash, row.requests,
                row.request_bytes, row.hits_common, row.responses, row.schedule_hash,
            ))  # fmt: skip
            self._run = None

    def response(self, *values: int) -> None:
        """One executed response; values in the order of ``RESPONSE_COLUMNS``."""
        self._responses.append(values)

    def step(self, *values: int) -> None:
        """One finished step; values in the order of ``STEP_COLUMNS``."""
        self._steps.append(values)

    def finish(self, blocking: bool = False, missing: frozenset[str] = frozenset()) -> Trace:
        """The trace. The writer is spent. ``blocking``, ``missing`` as in :class:`Trace`."""
        self._flush()
        return Trace(
            _table(CYCLE_COLUMNS, self._cycles),
            _table(RESPONSE_COLUMNS, self._responses),
            _table(STEP_COLUMNS, self._steps),
            blocking,
            missing,
        )


def _shifted(row: CycleRow, by_ns: int) -> CycleRow:
    """The same cycle, ``by_ns`` later."""
    return replace(
        row,
        enter_first_ns=row.enter_first_ns + by_ns,
        enter_last_ns=row.enter_last_ns + by_ns,
        leave_last_ns=row.leave_last_ns + by_ns,
        leave_last_shadow_ns=row.leave_last_shadow_ns + by_ns,
        finish_enter_last_ns=row.finish_enter_last_ns + by_ns,
        finish_enter_last_shadow_ns=row.finish_enter_last_shadow_ns + by_ns,
    )


def _table(columns: tuple[str, ...], rows: list[tuple[int, ...]]) -> dict[str, Int64]:
    matrix = np.array(rows, dtype=np.int64).reshape(len(rows), len(columns))
    return {name: np.ascontiguousarray(matrix[:, index]) for index, name in enumerate(columns)}
