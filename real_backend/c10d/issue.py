"""Passes a group's operations to its engine: named, alone or as one unit, and in the caller's order."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch

from coordsim.protocol.messages import Request
from real_backend.c10d.items import Item
from real_backend.c10d.names import Names
from real_backend.c10d.order import Issued, Order
from real_backend.c10d.work import BlockWork, CoordWork
from real_backend.engine.engine import Engine
from real_backend.engine.handles import Bell, Handle, close
from real_backend.errors import CollectiveFailed, DuplicateName

REQUESTS_KEPT = 1 << 16


class Issuer:
    """The operations of one group on one rank. Any thread may issue; all ranks must issue in the same order."""

    def __init__(self, engine: Engine | None, timeout: timedelta, store: Any) -> None:
        """Make an issuer; ``engine`` is None in a group of one rank.

        ``timeout`` is how long works wait unless an operation has its own. ``store`` holds keys of this group alone
        (:mod:`real_backend.c10d.order`).
        """
        self._engine = engine
        self._order = None if engine is None else Order(store, engine.rank, engine.ranks, self._ask)
        self._place = 0
        """Number of units issued so far."""
        self._timeout = timeout
        self._bell = Bell(lambda: None) if engine is None else engine.bell
        self._names = Names()
        self._requests: dict[str, Request] = {}
        self._handles: dict[str, Handle] = {}
        """The last handle under each name."""
        self._block: list[tuple[list[Item], BlockWork]] | None = None
        self._lock = threading.RLock()

    def issue(self, unit: Sequence[Item], timeout: timedelta | None = None) -> CoordWork | BlockWork:
        """Issue one operation, or several as one unit. Raises PeerLost or NotRunning when the job is over."""
        if self._block is not None:
            self._block.append((list(unit), BlockWork()))
            return self._block[-1][1]
        return self._submit(unit, timeout or self._timeout)

    def start_block(self) -> None:
        """Begin a block: operations issued from now on become one unit."""
        self._block = []

    def end_block(self) -> CoordWork:
        """Issue the block as one unit, which every rank pops as a whole. Raises as :meth:`issue`."""
        block, self._block = self._block or [], None
        work = self._submit([item for unit, _ in block for item in unit], self._timeout)
        for _, pending in block:
            pending.unit = work
        return work

    def _submit(self, unit: Sequence[Item], timeout: timedelta) -> CoordWork:
        place = -1
        if self._engine is None or not unit:
            handle = self._alone(unit)
        else:
            with self._lock:
                place, self._place = self._place, self._place + 1
                handle = self._enqueue(self._engine, self._name(unit), unit, place)
        return CoordWork(
            handle, [result for item in unit for result in item.results], timeout=timeout, hurry=self._bell.hurry,
            then=[item.then for item in unit if item.then is not None], failed=lambda: self._begin_anew(place),
        )  # fmt: skip

    def close(self) -> None:
        """End the comparison of orders; no more operations follow."""
        if self._order is not None:
            self._order.over = True

    def _name(self, unit: Sequence[Item]) -> str:
        signature = unit[0].signature if len(unit) == 1 else tuple(item.signature for item in unit)
        return self._names.name(unit[0].operation, signature)

    def _enqueue(self, engine: Engine, name: str, unit: Sequence[Item], place: int) -> Handle:
        before = self._handles.get(name)
        if before is not None and not before.done:
            with contextlib.suppress(CollectiveFailed):  # The holder of its work gets the error.
                before.wait()
        names = [name] if len(unit) == 1 else [f"{name}.{index}" for index in range(len(unit))]
        if len(unit) > 1 and engine.settings.strict_groups and names[0] not in self._requests:
            engine.register_groups([names])
        requests = [self._request(engine, each, item) for each, item in zip(names, unit, strict=True)]
        parts = [(request, item.payload, item.output) for request, item in zip(requests, unit, strict=True)]
        handle = self._handles[name] = engine.submit(parts, ready=_ready(unit), grouped=True)
        assert self._order is not None
        self._order.issued(Issued(place, requests, handle))
        return handle

    def _request(self, engine: Engine, name: str, item: Item) -> Request:
        """Return the request for ``item``: the same object each time, since equal objects cost more to compare."""
        request = self._requests.get(name)
        if request is None:
            if len(self._requests) >= REQUESTS_KEPT:
                self._requests.clear()
                self._handles = {key: handle for key, handle in self._handles.items() if not handle.done}
            request = self._requests[name] = replace(item.request, name=name, group=engine.group_digest(name))
        return request

    def _begin_anew(self, place: int) -> None:
        with self._lock:
            self._names.begin_anew(place)

    def _ask(self, requests: list[Request]) -> None:
        """Submit requests without tensors, which are known to fail."""
        assert self._engine is not None
        with contextlib.suppress(DuplicateName):
            self._engine.submit([(request, None, None) for request in requests], grouped=True)
        self._engine.bell.hurry()

    def _alone(self, unit: Sequence[Item]) -> Handle:
        """Carry out a unit in a group of one rank, which negotiates with no other rank."""
        with torch.no_grad():
            for item in unit:
                item.alone()
        handle = Handle(self._bell, 0, True)
        close(self._bell, [handle])
        return handle


def _ready(unit: Sequence[Item]) -> Any:
    """Return an event of the caller's stream after which the payloads exist; None on the CPU.

    Raises RuntimeError while a CUDA graph is captured.
    """
    on_gpu = next((item.payload for item in unit if item.payload is not None and item.payload.is_cuda), None)
    if on_gpu is None:
        return None
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("a negotiation cannot be captured in a CUDA graph")
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(on_gpu.device))
    return event


__all__ = ["Issuer"]
