"""What one rank's engine agreed on and executed, cycle by cycle, for tests to look at."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from coordsim.protocol.cache import ResponseCache
from coordsim.protocol.messages import Op, Request, Response
from coordsim.protocol.negotiator import CachedNegotiator
from real_backend.engine.assembly import assemble
from real_backend.engine.engine import Engine
from real_backend.engine.handles import Handle
from real_backend.engine.observer import CycleDetails, Observer, Performed
from real_backend.engine.settings import settings_from
from real_backend.job import environment_store
from real_backend.requests import RequestBook

Fused = tuple[str, ...]
_numbers = itertools.count()
"""Of this process's watches: all ranks make theirs in the same order."""


@dataclass
class Seen:
    """One cycle in which something was executed."""

    cycle: int
    responses: list[Fused]
    """Names in each operation, in order."""
    popped: tuple[str, ...]
    """What this rank brought into it."""
    slow: bool


class Watch(Observer):
    """Counts since the last :meth:`forget`, as they were at the end of a cycle."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self._latest: dict[str, int] = {}
        self.book = RequestBook()
        self._number = next(_numbers)
        self._meetings = 0
        self.forget()

    def forget(self) -> None:
        self.seen: list[Seen] = []
        self.invalidated = 0
        self.errors: list[str] = []
        self._from = self._latest

    def during(self, call: Callable[[], Any]) -> dict[str, int]:
        """What was counted while every rank did ``call``. No rank runs ahead: they meet, in the store, before and after
        each look, because what the engine could do for that would itself be counted."""
        self.meet()
        self.forget()
        self.meet()
        call()
        self.meet()
        found = {**self.counted(), "invalidated": self.invalidated}
        self.meet()
        return found

    def meet(self) -> None:
        assert self.engine is not None
        rank, ranks = self.engine.rank, self.engine.ranks
        store = environment_store(rank, ranks)
        self._meetings += 1
        key = f"watch {self._number}, meeting {self._meetings}"
        store.add(key, 1)
        while store.add(key, 0) < ranks:
            time.sleep(0.0005)

    def cycle(self, details: CycleDetails) -> None:
        assert self.engine is not None
        self._latest = self.engine.counters.snapshot()
        self.invalidated += details.schedule.invalidated
        if details.schedule.responses:
            names = [response.names for response in details.schedule.responses]
            popped = tuple(request.name for request in details.popped)
            self.seen.append(Seen(details.cycle, names, popped, details.schedule.slow))

    def response(self, response: Response, performed: Performed, tasks: Sequence[Request | None]) -> None:
        if response.op is Op.ERROR:
            self.errors.append(response.error)

    def counted(self) -> dict[str, int]:
        """What the engine's counters have grown by."""
        return {name: value - self._from.get(name, 0) for name, value in self._latest.items()}

    @property
    def operations(self) -> list[Fused]:
        return [names for seen in self.seen for names in seen.responses]

    @property
    def cache(self) -> ResponseCache:
        assert self.engine is not None
        negotiator = self.engine._session.negotiator
        assert isinstance(negotiator, CachedNegotiator)
        return negotiator.cache

    @property
    def names_by_bit(self) -> list[str]:
        return [name for _, name in self.cache.names_by_bit()]


def watched(**settings: Any) -> tuple[Engine, Watch]:
    """This rank's engine, started, with a watch on it. Settings as :class:`EngineSettings`'s, over the environment."""
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    watch = Watch()
    chosen = settings_from(**settings)
    engine = assemble(chosen, environment_store(rank, ranks), rank, ranks, observers=[watch])
    watch.engine = engine
    engine.start()
    return engine, watch


def together(engine: Engine, tensors: Mapping[str, torch.Tensor], **fields: Any) -> Handle:
    """Submit tensors by exactly these names as one unit; ``fields`` of all their requests."""
    book = RequestBook()
    unit = [
        (book.request(name, tensor, group=engine.group_digest(name), **fields), tensor, None)
        for name, tensor in tensors.items()
    ]
    return engine.submit(unit, grouped=True)


def ones(*names: str, elements: int = 2, value: float = 1.0) -> dict[str, torch.Tensor]:
    return {name: torch.full((elements,), value) for name in names}
