"""The works that operations of a group return to c10d's callers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from real_backend.c10d.futures import future_of
from real_backend.engine.handles import Handle
from real_backend.errors import CollectiveFailed


class CoordWork(dist._Work):  # type: ignore[misc,name-defined,unused-ignore]
    """One unit of one or several operations. C++ calls :meth:`wait` and :meth:`get_future`, and nothing else."""

    def __init__(
        self, handle: Handle, outputs: Sequence[torch.Tensor], *, timeout: timedelta, hurry: Callable[[], None],
        then: Sequence[Callable[[], object]] = (), failed: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        """``then`` is work for a thread that uses the results; ``failed`` is called if the unit failed on all ranks.

        ``timeout`` applies to :meth:`wait` unless a call has its own. ``hurry`` tells the loop that a thread waits.
        """
        super().__init__()
        self._handle = handle
        self._outputs = list(outputs)
        self._timeout = timeout
        self._hurry = hurry
        self._then = then
        self._failed = failed
        self._future: Any = None
        self._lock = threading.Lock()

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Wait until the outputs are there; on a GPU, make the current stream wait for them.

        Raises CollectiveFailed, PeerLost or ShutDown if the unit ended so, TimeoutError after ``timeout``.
        """
        limit = timeout if timeout else self._timeout
        try:
            self._handle.wait(limit.total_seconds())
        except CollectiveFailed:
            with self._lock:
                failed, self._failed = self._failed, None
            if failed is not None:
                failed()
            raise
        self._finish()
        return True

    def _finish(self) -> None:
        with self._lock:
            calls, self._then = self._then, ()
            with torch.no_grad():
                for call in calls:
                    call()

    def _outcome(self) -> list[torch.Tensor]:
        self.wait()
        return self._outputs

    def get_future(self) -> Any:
        """Return a future of the list of outputs, or of the error.

        The caller may already wait for it without Python's knowledge, so the loop is told to hurry.
        """
        with self._lock:
            if self._future is None:
                devices = sorted({each.device for each in self._outputs if each.is_cuda}, key=str)
                self._future = future_of(self._handle, self._outcome, devices)
        self._hurry()
        return self._future

    def is_completed(self) -> bool:
        if self.is_success():
            self._handle.wait()
            self._finish()
        return self._handle.done

    def is_success(self) -> bool:
        return self._handle.done and self._handle.error is None

    def exception(self) -> BaseException | None:
        return self._handle.error

    def result(self) -> list[torch.Tensor]:
        """Return the outputs. Raises as :meth:`wait`."""
        return self._outcome()

    def synchronize(self) -> None:
        self.wait()

    def block_current_stream(self) -> None:
        self.wait()


class BlockWork(dist._Work):  # type: ignore[misc,name-defined,unused-ignore]
    """The work of an operation in a coalescing block, which cannot be waited for before the block has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.unit: CoordWork | None = None
        """The work of the block, set when it ends."""

    def wait(self, timeout: timedelta | None = None) -> bool:
        return self.unit is None or self.unit.wait(timeout)

    def get_future(self) -> Any:
        """Return the future of the block. Raises RuntimeError while the block is open."""
        if self.unit is None:
            raise RuntimeError("an operation in a coalescing block has no future before the block has ended")
        return self.unit.get_future()


__all__ = ["BlockWork", "CoordWork"]
