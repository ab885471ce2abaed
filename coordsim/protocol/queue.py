"""The tensor queue between a framework thread that submits and a negotiator that pops."""

from __future__ import annotations

from collections.abc import Iterable

from coordsim.protocol.messages import Request


class DuplicateName(ValueError):
    """A name was submitted again before its first submission ended (invariant I3)."""


class TensorQueue:
    """First in, first out; a unit of several tensors becomes visible as a whole or not at all."""

    def __init__(self) -> None:
        self._outstanding: dict[str, Request] = {}
        self._submitted: list[Request] = []

    def __len__(self) -> int:
        return len(self._outstanding)

    @property
    def outstanding(self) -> tuple[str, ...]:
        """Names submitted and not finished, in submission order."""
        return tuple(self._outstanding)

    @property
    def popped(self) -> frozenset[str]:
        """Names that the negotiator has been given and that are not finished."""
        return frozenset(self._outstanding).difference(request.name for request in self._submitted)

    def submit(self, unit: Iterable[Request]) -> None:
        """Queue a tensor or a whole group. Raises DuplicateName, and then queues none of it."""
        requests = tuple(unit)
        fresh: set[str] = set()
        for request in requests:
            if request.name in self._outstanding or request.name in fresh:
                raise DuplicateName(
                    f"{request.name!r} was submitted again before its first submission ended"
                )
            fresh.add(request.name)
        for request in requests:
            self._outstanding[request.name] = request
        self._submitted += requests

    def pop(self) -> tuple[Request, ...]:
        """Everything submitted since the last pop, in order."""
        popped, self._submitted = tuple(self._submitted), []
        return popped

    def finish(self, name: str) -> Request:
        """``name`` was executed (or failed); it may be submitted again. Raises KeyError when unknown."""
        return self._outstanding.pop(name)

    def drain(self) -> tuple[str, ...]:
        """End every outstanding submission, as a shutdown does; returns their names."""
        names = self.outstanding
        self._outstanding.clear()
        self._submitted.clear()
        return names
