"""Exchanges over gloo: lengths first, then data padded to the longest, since gloo gathers equal sizes only."""

from __future__ import annotations

import contextlib
import threading
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from coordsim.protocol.negotiator import COORDINATOR
from real_backend.control.collective import CollectiveTransport
from real_backend.control.rendezvous import address_of
from real_backend.engine.settings import EngineSettings

_TAG = 7


class GlooTransport(CollectiveTransport):
    """A transport with a gloo communicator of its own. gloo's AND is a ring of 2 (N - 1) hops (docs/horovod.md 3.6)."""

    def __init__(self, store: dist.Store, rank: int, ranks: int, settings: EngineSettings) -> None:
        super().__init__(rank, ranks, settings.tree_radix(ranks))
        group_type: Any = dist.ProcessGroupGloo
        options = group_type._Options()
        options._timeout = timedelta(microseconds=settings.data_timeout_ns // 1000)
        options._threads = 1
        options._devices = [group_type.create_device(hostname=address_of(settings.interface))]
        self._group: Any = group_type(store, rank, ranks, options)

    def reduce(self, value: int, words: int, *, intersect: bool) -> int:
        if self.ranks == 1:
            return value
        vector = torch.frombuffer(bytearray(value.to_bytes(8 * words, "little")), dtype=torch.uint8)
        options = dist.AllreduceOptions()
        options.reduceOp = dist.ReduceOp.BAND if intersect else dist.ReduceOp.BOR  # type: ignore[assignment]
        self._group.allreduce([vector], options).wait()
        return int.from_bytes(vector.numpy().tobytes(), "little")

    def gather(self, data: bytes) -> list[bytes] | None:
        lengths = self._gather_equal(torch.tensor([len(data)]), 1)
        longest = torch.tensor([int(max(lengths)) if lengths else 0])
        self._broadcast_tensor(longest)
        padded = torch.frombuffer(bytearray(data.ljust(int(longest), b"\0")), dtype=torch.uint8)
        parts = self._gather_equal(padded, int(longest))
        if parts is None or lengths is None:
            return None
        return [part.numpy().tobytes()[: int(length)] for part, length in zip(parts, lengths, strict=True)]

    def _gather_equal(self, own: torch.Tensor, elements: int) -> list[torch.Tensor] | None:
        if self.ranks == 1:
            return [own]
        options = dist.GatherOptions()
        options.rootRank = COORDINATOR
        at_root = self.rank == COORDINATOR
        parts = [torch.empty(elements, dtype=own.dtype) for _ in range(self.ranks)] if at_root else []
        self._group.gather([parts] if at_root else [], [own], options).wait()
        return parts if at_root else None

    def broadcast(self, data: bytes) -> bytes:
        length = torch.tensor([len(data)])
        self._broadcast_tensor(length)
        padded = bytearray(data if self.rank == COORDINATOR else int(length))
        values = torch.frombuffer(padded, dtype=torch.uint8)
        self._broadcast_tensor(values)
        return values.numpy().tobytes()

    def _broadcast_tensor(self, values: torch.Tensor) -> None:
        if self.ranks > 1:
            options = dist.BroadcastOptions()
            options.rootRank, options.rootTensor = COORDINATOR, 0
            self._group.broadcast([values], options).wait()

    def send(self, rank: int, data: bytes) -> None:
        self._group.send([torch.tensor([len(data)])], rank, _TAG).wait()
        self._group.send([torch.frombuffer(bytearray(data), dtype=torch.uint8)], rank, _TAG).wait()

    def receive(self, rank: int) -> bytes:
        length = torch.zeros(1, dtype=torch.int64)
        self._group.recv([length], rank, _TAG).wait()
        values = torch.empty(int(length), dtype=torch.uint8)
        self._group.recv([values], rank, _TAG).wait()
        return values.numpy().tobytes()

    def break_off(self) -> None:
        """Abort. gloo ends a collective when a peer closes its connections; abort does the rest that is possible."""
        threading.Thread(target=self._abort, name="coordsim-abort", daemon=True).start()

    def _abort(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._group.abort()

    def close(self) -> None:
        self._group = None
