"""Detects ranks that issue different operations in the same place, and makes both fail instead of waiting for ever.

Different names never meet at the coordinator, which cannot know that they should have. So a rank whose operation waits
for long writes its place and name to the store; rank 0 compares, and writes where names differ. Every rank then
requests its own operation under the others' names, too. Now the requests meet and do not agree, and all ranks get an
error that states what each had. While operations complete, none of this happens or costs anything.

Only differences in the same place are detected. Where ranks with several operations under way differ by more than that,
operations of the same name are matched, and the rest waits until the group's time-out.
"""

from __future__ import annotations

import json
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from coordsim.protocol.messages import Op, Request
from real_backend.engine.handles import Handle
from real_backend.errors import CollectiveFailed

PATIENCE_S = 1.0
"""Age at which a pending operation is compared."""
LOOKS_S = (0.5, 30.0)
"""Time between two comparisons: the first interval, and the largest, since it doubles."""
KEPT_S = 120.0
"""Age up to which a failed operation is remembered, because other ranks may not have got its error yet."""


@dataclass(slots=True)
class Issued:
    """One unit that a rank has issued."""

    place: int
    """Number of units that the group issued before it."""
    requests: Sequence[Request]
    handle: Handle
    since: float = field(default_factory=time.monotonic)
    met: set[str] = field(default_factory=set)
    """Other ranks' names under which it was requested."""

    @property
    def names(self) -> list[str]:
        return [request.name for request in self.requests]

    @property
    def wanted(self) -> str:
        """What was requested, without the names."""
        return str([replace(request, name="") for request in self.requests])

    @property
    def failed(self) -> bool:
        return self.handle.done and isinstance(self.handle.error, CollectiveFailed)

    def forgotten(self, now: float) -> bool:
        return self.handle.done and not (self.failed and now - self.since < KEPT_S)


class Order:
    """The order of one group's operations on one rank."""

    def __init__(self, store: Any, rank: int, ranks: int, ask: Callable[[list[Request]], object]) -> None:
        """``ask`` submits requests that have no tensors, and will fail."""
        self._store = store
        self._rank, self._ranks = rank, ranks
        self._ask = ask
        self._lock = threading.Lock()
        self._issued: deque[Issued] = deque()
        self._told = ""
        self._differ: dict[int, list[list[Any]]] = {}
        self._next, self._pause = 0.0, LOOKS_S[0]
        self.over = False
        _watch(self)

    def issued(self, unit: Issued) -> None:
        """Note a unit; called by the thread that issues, in order."""
        with self._lock:
            while self._issued and self._issued[0].forgotten(unit.since):
                self._issued.popleft()
            self._issued.append(unit)

    def look(self) -> None:
        """Compare pending operations when they are due; called periodically by one thread."""
        now = time.monotonic()
        with self._lock:
            waiting = [each for each in self._issued if not each.handle.done and now - each.since > PATIENCE_S]
            failed = [each for each in self._issued if each.failed and not each.forgotten(now)]
        if not waiting and not failed:
            self._pause = LOOKS_S[0]
        elif now >= self._next:
            self._compare([*failed, *waiting])
            self._next, self._pause = now + self._pause, min(2 * self._pause, LOOKS_S[1])

    def _compare(self, units: list[Issued]) -> None:
        mine = json.dumps([[each.place, each.names, each.wanted] for each in units[:64]])
        if mine != self._told:
            self._told, self._pause = mine, LOOKS_S[0]
            self._store.set(f"order/{self._rank}", mine)
        if self._rank == 0:
            self._judge()
        elif self._store.check(["order/differ"]):
            differences = json.loads(self._store.get("order/differ"))
            self._differ = {int(place): wanted for place, wanted in differences.items()}
        for unit in units:
            for names, wanted in self._differ.get(unit.place, ()):
                if names[0] not in unit.met and names[0] != unit.names[0]:
                    unit.met.add(names[0])
                    plainly = len(names) == 1 and wanted != unit.wanted
                    self._ask([_request_under(name, unit, plainly) for name in names])

    def _judge(self) -> None:
        """On rank 0, find out where names differ."""
        by_place: dict[int, list[list[Any]]] = {}
        for rank in range(self._ranks):
            if self._store.check([f"order/{rank}"]):
                for place, names, wanted in json.loads(self._store.get(f"order/{rank}")):
                    if [names, wanted] not in by_place.setdefault(place, []):
                        by_place[place].append([names, wanted])
        differ = {place: all_ for place, all_ in by_place.items() if len({names[0] for names, _ in all_}) > 1}
        if any(self._differ.get(place) != wanted for place, wanted in differ.items()):
            self._differ |= differ
            self._store.set("order/differ", json.dumps(self._differ))


def _request_under(name: str, unit: Issued, plainly: bool) -> Request:
    """Return this rank's request under another rank's name.

    Where it could be taken for agreement, the request is one that no rank wants.
    """
    if plainly and len(unit.requests) == 1 and unit.requests[0].op is not Op.BARRIER:
        return replace(unit.requests[0], name=name, group=0)
    return Request(name, Op.BARRIER, shape=(unit.place,))


_watched: weakref.WeakSet[Order] = weakref.WeakSet()
_thread: threading.Thread | None = None


def _watch(order: Order) -> None:
    global _thread
    _watched.add(order)
    if _thread is None:
        _thread = threading.Thread(target=_look_at_all, name="coordsim-order", daemon=True)
        _thread.start()


def _look_at_all() -> None:
    while True:
        time.sleep(LOOKS_S[0])
        for order in list(_watched):
            try:
                if not order.over:
                    order.look()
            except Exception:  # The store is gone, or the job is over, which other threads report.
                order.over = True


__all__ = ["Issued", "Order"]
