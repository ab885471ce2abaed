"""Collectives of frameworks without hooks: functions of torch's modules are wrapped as the modules are loaded.

The wrappers stamp when a collective's buffer is filled, when the collective is called, and when it is over.
"""

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
"""Names of the collectives in torch: since 2.13, before, and on the CPU."""


class Filling:
    """Tracks which parameters are being packed for the next collective of one framework."""

    def __init__(self, process: Process) -> None:
        self._process, self._session = process, process.session
        self._running: Collective | None = None

    def watch(self, module: Any) -> None:
        """Observe the collectives that ``module`` calls as ``dist.NAME`` from now on."""
        module.dist = _ObservedModule(module.dist, self._around)

    def wrap(
        self, plain: Callable[..., Any], op: Op, parameters: Callable[..., Sequence[Parameter]]
    ) -> Callable[..., Any]:
        """Wrap ``plain``, which fills a buffer and calls an ``op``. ``parameters`` maps its arguments to what it
        packs."""

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


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "element_size")


class _ObservedModule:
    """Stands in for :mod:`torch.distributed` in a framework's module, and observes calls of a few functions."""

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
    def observed(*arguments: Any, **more: Any) -> Any:
        return around(plain, arguments, more)

    return observed
