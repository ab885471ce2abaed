"""One rank's stream as a file: head, tensors by id, complete blocks, a size limit.

The format is that of :mod:`coordsim.record.ranks.format`. A fault of the file system ends the stream, never the job.
"""

from __future__ import annotations

import json
import os
import platform
import struct
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coordsim.record.ranks.format import CLOCK, CPU, MAGIC, NULL, READY, SCHEMA, SPAN, SPANS, Block, block
from coordsim.record.ranks.reader import SUFFIX, CpuTimes, Span
from real_backend.life.clocks import Offset


@dataclass(frozen=True, eq=False)
class Parameter:
    """A parameter whose gradient's readiness is stamped; there is one object for each parameter."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


@dataclass
class StepDetails:
    """What the hooks in a script know of one step when it ends."""

    kind: str
    spans: Sequence[Span]
    cpu: CpuTimes | None = None
    names: Sequence[tuple[str, str]] = field(default_factory=tuple)
    """("optimizers" or "models", name) of those first seen in this step; each list counts its own places."""


@dataclass(frozen=True)
class Writer:
    """The rank that writes a stream, as stated in the stream's head."""

    rank: int
    ranks: int
    job: str
    """A name that all ranks of the job share and no other job has."""
    settings: Mapping[str, Any]
    limits: Mapping[str, Any]
    """Limits of the recorder: what it keeps, and how much."""
    detailed: bool
    """Whether this rank writes every step's details, or counts only."""


class RankStream:
    """A stream whose blocks are gathered by :meth:`add` and written by :meth:`flush`, in one system call each."""

    def __init__(self, folder: Path, writer: Writer, *, max_bytes: int, clock_ns: Callable[[], int]) -> None:
        """Create ``folder``/rank-NNNNN.rank, in place of an earlier run's. Raises OSError."""
        self.path = folder / f"rank-{writer.rank:05d}{SUFFIX}"
        self.refused = 0
        """Number of writes that the limit or a fault of the file system prevented."""
        self._max_bytes = max_bytes
        self._pending: list[bytes] = []
        self._written = 0
        self._ids = 0
        self._parameters: dict[Parameter, int] = {}
        folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self.path, flags, 0o644)
        head = {
            "schema": SCHEMA, "job": writer.job, "rank": writer.rank, "ranks": writer.ranks,
            "host": platform.node(), "pid": os.getpid(),
            "started_unix_ns": time.time_ns(), "started_ns": clock_ns(), "settings": dict(writer.settings),
            "limits": dict(writer.limits), "detailed": writer.detailed, **_surroundings(),
            "kinds": {"optimizers": [], "models": []},
        }  # fmt: skip
        self._write(MAGIC + block(Block.HEAD, json.dumps(head).encode()))

    def add(self, *data: bytes) -> None:
        self._pending += data

    def tensor(self, facts: Mapping[str, Any]) -> int:
        """Write a new tensor and return its id."""
        number, self._ids = self._ids, self._ids + 1
        self.add(block(Block.TENSOR, struct.pack("<I", number) + json.dumps(dict(facts)).encode()))
        return number

    def parameter(self, parameter: Parameter) -> int:
        """Return a parameter's id; its facts are written when it is first seen."""
        number = self._parameters.get(parameter)
        if number is None:
            number = self._parameters[parameter] = self.tensor({
                "name": parameter.name, "kind": "parameter", "dtype": parameter.dtype, "shape": list(parameter.shape),
                "bytes": parameter.nbytes,
            })  # fmt: skip
        return number

    def ready(self, step: int, stamps: Sequence[tuple[Parameter, int]]) -> None:
        """Write when each parameter's gradient became ready in ``step``, ns."""
        if stamps:
            ids = [self.parameter(parameter) for parameter, _ in stamps]
            times = [at_ns for _, at_ns in stamps]
            count = len(ids)
            self.add(block(Block.READY, READY.pack(step, count) + struct.pack(f"<{count}I{count}q", *ids, *times)))

    def step_details(self, step: int, details: StepDetails) -> None:
        """Write what the hooks know of ``step``, which must be added before the step's own block."""
        for of, name in details.names:
            self.add(block(Block.NAME, json.dumps({"of": of, "name": name}).encode()))
        packed = b"".join(SPAN.pack(*span) for span in details.spans)
        self.add(block(Block.SPANS, SPANS.pack(step, len(details.spans)) + packed + details.kind.encode()))
        if details.cpu is not None:
            core_wait_ns = NULL if details.cpu.core_wait_ns is None else details.cpu.core_wait_ns
            self.add(block(Block.CPU, CPU.pack(step, *details.cpu[:3], core_wait_ns)))

    def clock(self, now_ns: int, offset: Offset) -> None:
        self.add(block(Block.CLOCK, CLOCK.pack(now_ns, offset.offset_ns, offset.error_ns)))

    def end(self, **why: Any) -> None:
        """Write the last block and close. Does nothing if the stream is closed."""
        self.add(block(Block.END, json.dumps(why).encode()))
        self.flush()
        self._close()

    def ended(self, how: str, **more: Any) -> None:
        """Append how the process ended, also to a closed stream. A fault of the file system is ignored."""
        append_end(self.path, how, **more)

    def abandon(self) -> None:
        """Write nothing more, because another stream writes to the file from now on."""
        self._pending = []
        self._close()

    def flush(self) -> None:
        if self._pending:
            data = b"".join(self._pending)
            self._pending = []
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self._file < 0 or self._written + len(data) > self._max_bytes:
            self.refused += 1
            return
        try:
            self._written += os.write(self._file, data)
        except OSError:
            self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def append_end(path: Path, how: str, **more: Any) -> None:
    """Append an END block that says how a rank's process ended (:data:`coordsim.record.ranks.format.HOWS`).

    ``more`` is its ``code``, ``signal``, ``text``. Nothing happens if the file is gone or cannot be written.
    """
    ended = {"how": how, "unix_ns": time.time_ns(), **{key: value for key, value in more.items() if value is not None}}
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(file, block(Block.END, json.dumps({"ended": ended}).encode()))
    except OSError:
        pass
    finally:
        os.close(file)


def _surroundings() -> dict[str, Any]:
    """Return cores and threads that the process may use, and the ranks on its host: what CPU times depend on."""
    threads = None
    torch: Any = sys.modules.get("torch")
    if hasattr(torch, "get_num_interop_threads"):
        threads = {"torch": torch.get_num_threads(), "interop": torch.get_num_interop_threads()}
    local = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") or ""
    return {
        "cores": sorted(_cores()), "threads": threads, "local_ranks": int(local) if local.isdecimal() else None,
    }  # fmt: skip


def _cores() -> Iterable[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)
