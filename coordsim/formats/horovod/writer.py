"""Writes timelines that are valid JSON after every event, however the process ends.

Unlike the other files of this project, a timeline is not written under a temporary name: it can be read while, and
after, the writing process runs or dies.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from coordsim.formats.horovod.events import CYCLE_START, EPOCH, NEGOTIATE, UNFINISHED

_SEPARATOR = ",\n"
_NOTHING: Mapping[str, object] = {}


@dataclass(slots=True)
class _Process:
    """A tensor; the format has one process for each."""

    pid: int
    last_us: int = 0
    open: list[str] = field(default_factory=list)
    """Names of the events begun and not ended, outermost first."""

    @property
    def negotiating(self) -> bool:
        return bool(self.open) and self.open[0].startswith(NEGOTIATE)


class TimelineWriter:
    """Rank 0's timeline in Horovod's format (docs/horovod.md 6).

    Written to nothing until :meth:`start`; events while stopped are dropped, as Horovod drops them. Times are
    integer microseconds, not decreasing for any one tensor (ValueError). Every event is one ``pwrite`` over the
    closing bracket, so a killed process leaves a file that parses. *Better than Horovod*: a file is valid from
    the start, before its first event; ends without a beginning are never written; what is open when the writer
    stops is ended with the argument ``unfinished``.
    """

    def __init__(self, path: Path | None = None, mark_cycles: bool = False, *, start_epoch_us: int = 0) -> None:
        self.path: Path | None = None
        """The file being written; None while stopped."""
        self._mark_cycles = False
        self._file = -1
        self._end = 0
        """Offset of the closing bracket."""
        self._empty = True
        self._processes: dict[str, _Process] = {}
        self._last_us = 0
        if path is not None:
            self.start(path, mark_cycles, start_epoch_us=start_epoch_us)

    def start(self, path: Path, mark_cycles: bool = False, *, start_epoch_us: int = 0) -> None:
        """Write to ``path`` from now on, in place of its content; does nothing if it is being written.

        ``start_epoch_us`` is the wall time of time 0, microseconds since 1970; 0 for simulated time. Raises OSError.
        """
        if self.path is not None and os.path.abspath(self.path) == os.path.abspath(path):
            return
        self.stop()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self.path, self._mark_cycles = path, mark_cycles
        self._processes, self._last_us, self._empty = {}, 0, True
        os.pwrite(self._file, b"[\n]", 0)
        self._end = 2
        header = {"name": "process_name", "ph": "M", "pid": 0, "args": {EPOCH: start_epoch_us}}
        self._put([header, _sort_index(0)])

    def stop(self) -> None:
        """End what is open, and the file. Does nothing while stopped."""
        if self.path is None:
            return
        for process in self._processes.values():
            while process.open:
                self._finish(process, self._last_us, {UNFINISHED: True})
        os.close(self._file)
        self.path, self._file = None, -1

    def __enter__(self) -> TimelineWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # What rank 0's background thread reports.

    def cycle_start(self, ts_us: int) -> None:
        """Write that a turn of the loop begins, if cycles are marked."""
        if self.path is not None and self._mark_cycles:
            self._last_us = max(self._last_us, ts_us)
            self._put([{"ph": "i", "name": CYCLE_START, "ts": ts_us, "s": "g"}])

    def negotiate_start(self, tensor: str, operation: str, ts_us: int) -> None:
        """Write the first request, or hit, of ``tensor``. While it is being negotiated this does nothing."""
        process = self._process(tensor)
        if process is not None and not process.negotiating:
            self._begin(process, NEGOTIATE + operation, ts_us)

    def tick(self, tensor: str, rank: int, ts_us: int) -> None:
        """Write that rank 0 has counted ``rank``'s request."""
        process = self._processes.get(tensor)
        if process is not None and process.negotiating:
            self._put([{"ph": "X", "name": str(rank), "ts": self._time(process, ts_us), "pid": process.pid, "dur": 0}])

    def negotiate_end(self, tensor: str, ts_us: int) -> None:
        """Write that every rank has requested ``tensor``."""
        process = self._processes.get(tensor)
        if process is not None and process.negotiating:
            self._finish(process, ts_us)

    def start_operation(self, tensor: str, operation: str, ts_us: int) -> None:
        """Write that ``tensor``'s operation begins: ALLREDUCE, ..., ERROR. Raises ValueError while it is negotiated."""
        process = self._process(tensor)
        if process is not None:
            self._begin(process, operation, ts_us)

    def start_activity(self, tensors: Iterable[str], activity: str, ts_us: int) -> None:
        """Write that a part of an operation begins, for all members of a fused response at once."""
        for tensor in tensors:
            process = self._processes.get(tensor)
            if process is not None and process.open:
                self._begin(process, activity, ts_us, nested=True)

    def end_activity(self, tensors: Iterable[str], ts_us: int) -> None:
        """Write that the part that began last is over."""
        for tensor in tensors:
            process = self._processes.get(tensor)
            if process is not None and len(process.open) > 1:
                self._finish(process, ts_us)

    def end_operation(self, tensor: str, ts_us: int, dtype: str = "", shape: tuple[int, ...] | None = None) -> None:
        """Write that ``tensor``'s operation is over; without ``shape`` it failed."""
        process = self._processes.get(tensor)
        if process is not None and len(process.open) == 1 and not process.negotiating:
            done = {} if shape is None else {"dtype": dtype, "shape": f"[{', '.join(map(str, shape))}]"}
            self._finish(process, ts_us, done)

    # The file.

    def _process(self, tensor: str) -> _Process | None:
        """Return the tensor's process, introduced when it is new; None while stopped."""
        if self.path is None:
            return None
        process = self._processes.get(tensor)
        if process is None:
            process = self._processes[tensor] = _Process(len(self._processes) + 1)
            name = {"name": "process_name", "ph": "M", "pid": process.pid, "args": {"name": tensor}}
            self._put([name, _sort_index(process.pid)])
        return process

    def _begin(self, process: _Process, name: str, ts_us: int, nested: bool = False) -> None:
        if process.open and (process.negotiating or not nested):
            raise ValueError(f"{name} begins while {process.open[0]} of process {process.pid} is open")
        self._put([{"ph": "B", "name": name, "ts": self._time(process, ts_us), "pid": process.pid}])
        process.open.append(name)

    def _finish(self, process: _Process, ts_us: int, args: Mapping[str, object] = _NOTHING) -> None:
        event = {"ph": "E", "ts": self._time(process, ts_us), "pid": process.pid}
        self._put([{**event, "args": args} if args else event])
        process.open.pop()

    def _time(self, process: _Process, ts_us: int) -> int:
        if ts_us < process.last_us:
            raise ValueError(f"time {ts_us} us of process {process.pid} is before {process.last_us} us")
        process.last_us = ts_us
        self._last_us = max(self._last_us, ts_us)
        return ts_us

    def _put(self, events: Iterable[Mapping[str, object]]) -> None:
        """Write the events over the closing bracket, and a new one behind them, in one call."""
        first = "" if self._empty else _SEPARATOR
        data = (first + _SEPARATOR.join(map(json.dumps, events)) + "]").encode()
        self._empty = False
        while data:
            written = os.pwrite(self._file, data, self._end)
            self._end += written
            data = data[written:]
        self._end -= 1


def _sort_index(pid: int) -> dict[str, object]:
    return {"name": "process_sort_index", "ph": "M", "pid": pid, "args": {"sort_index": pid}}
