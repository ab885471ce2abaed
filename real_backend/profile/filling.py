"""Collectives of frameworks without hooks: functions of torch's own modules are wrapped as those are loaded, and say
when one's buffer is filled, when it is called, and when it is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from types import ModuleType
from typing import Any

from coordsim.protocol.messages import Op
from real_backend.profile.process import Process
from real_backend.profile.steps import Collective, StepRecorder
from real_backend.stream import Parameter

GATHERS = ("all_gather_single", "all_gather_into_tensor", "all_gather")
REDUCES = ("reduce_scatter_single", "reduce_scatter_tensor", "all_reduce")
"""As torch calls them since 2.13, before, and on the CPU."""


class Filling:
    """What one framework is filling the buffer of."""

    def __init__(self, process: Process) -> None:
        self._process, self._session = process, process.session
        self._running: Collective | None = None

    def told(self, module: Any) -> None:
        """``module`` calls collectives as ``dist.NAME``: from now on they are seen."""
        module.dist = _Told(module.dist, self._around)

    def of(
        self, plain: Callable[..., Any], op: Op, parameters: Callable[..., Sequence[Parameter]]
    ) -> Callable[..., Any]:
        """``plain`` fills a buffer and calls an ``op``; ``parameters`` is given its arguments and says of what."""

        @wraps(plain)
        def filled(*arguments: Any, **more: Any) -> Any:
            over = self._session.over
            self._running = None if over else self._session.quietly(self._begin, op, parameters, arguments, more)
            try:
                return plain(*arguments, **more)
            finally:
                self._running = None

        return filled

    def _begin(
        self, op: Op, parameters: Callable[..., Sequence[Parameter]], arguments: Any, more: Any
    ) -> Collective | None:
        sink = self._session.sink
        if not isinstance(sink, StepRecorder):
            return None
        return sink.collective(op, parameters(*arguments, **more), 0, self._session.clock_ns())

    def _around(self, plain: Callable[..., Any], arguments: Any, more: Any) -> Any:
        running = self._running
        if running is None:
            return plain(*arguments, **more)
        self._session.quietly(self._called, running, arguments, more)
        work = plain(*arguments, **more)
        self._session.quietly(self._returned, running, work)
        return work

    def _called(self, running: Collective, arguments: Any, more: Any) -> None:
        lists = [each if isinstance(each, list | tuple) else [each] for each in (*arguments, *more.values())]
        sizes = [sum(one.numel() * one.element_size() for one in each if _is_tensor(one)) for each in lists]
        if running.called_ns < 0:
            running.nbytes = max(sizes, default=0)
            running.called_ns = self._session.clock_ns()
        running.known = not any(one.is_cuda for each in lists for one in each if _is_tensor(one))

    def _returned(self, running: Collective, work: Any) -> None:
        if work is None:
            self._process.ended(running)
        else:
            self._process.ends(running, work.wait)


def _is_tensor(each: Any) -> bool:
    return hasattr(each, "element_size")


class _Told:
    """:mod:`torch.distributed` as a framework's module sees it: a few functions say when they are called."""

    def __init__(self, plain: ModuleType, around: Callable[..., Any]) -> None:
        self._plain = plain
        for name in (*GATHERS, *REDUCES):
            function = getattr(plain, name, None)
            if function is not None:
                setattr(self, name, _around(function, around))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)


def _around(plain: Callable[..., Any], around: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(plain)
    def told(*arguments: Any, **more: Any) -> Any:
        return around(plain, arguments, more)

    return told
