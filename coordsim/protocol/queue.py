"""The tensor queue between a framework thread that submits and a negotiator that pops."""

from __future__ import annotations

from collections.abc import Iterable

from coordsim.protocol.messages import JOIN_NAME, Op, Request

SHUT_DOWN = "the job has been shut down: this rank or another one stopped, or one was lost"
"""The error with which everything outstanding ends at a shutdown, on every rank."""


class DuplicateName(ValueError):
    """A name was submitted again before its first submission ended (invariant I3)."""


class AfterJoin(ValueError):
    """A rank that has joined submitted something before all had joined."""


class NotRunning(RuntimeError):
    """Submitted before the job was initialized or after it was shut down."""


class TensorQueue:
    """First in, first out; a unit of several tensors becomes visible as a whole or not at all."""

    def __init__(self) -> None:
        self._outstanding: dict[str, Request] = {}
        self._submitted: list[Request] = []
        self._closed = False

    def __len__(self) -> int:
        return len(self._outstanding)

    def __contains__(self, name: object) -> bool:
        """Whether ``name`` is outstanding; a rank that has joined executes what it does not hold with zeros."""
        return name in self._outstanding

    @property
    def outstanding(self) -> tuple[str, ...]:
        """Names submitted and not finished, in submission order."""
        return tuple(self._outstanding)

    @property
    def popped(self) -> frozenset[str]:
        """Names that the negotiator has been given and that are not finished."""
        return frozenset(self._outstanding).difference(request.name for request in self._submitted)

    def submit(self, unit: Iterable[Request]) -> None:
        """Queue a tensor or a whole group.

        Raises DuplicateName, AfterJoin while a join is outstanding, NotRunning after :meth:`drain`, ValueError
        for a join that is not :func:`coordsim.protocol.messages.join_request`; and then queues none of it.
        """
        if self._closed:
            raise NotRunning(SHUT_DOWN)
        requests = tuple(unit)
        fresh: set[str] = set()
        for request in requests:
            if request.name in self._outstanding or request.name in fresh:
                raise DuplicateName(
                    f"{request.name!r} was submitted again before its first submission ended"
                )
            fresh.add(request.name)
            if (request.op is Op.JOIN) != (request.name == JOIN_NAME):
                raise ValueError(f"{JOIN_NAME!r} is the name of a join and of nothing else, not {request.name!r}")
        if requests and (JOIN_NAME in self._outstanding or (JOIN_NAME in fresh and len(requests) > 1)):
            raise AfterJoin(f"{requests[0].name!r} was submitted after this rank had joined")
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
        """End every outstanding submission and take no more, as a shutdown does; returns their names."""
        names = self.outstanding
        self._closed = True
        self._outstanding.clear()
        self._submitted.clear()
        return names
