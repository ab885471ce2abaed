"""``fully_shard`` (FSDP2): readiness by parameter, and each group's gather and reduction. It has no hooks for that, so
functions of torch's own modules are wrapped as they are loaded; where they are not what they were, nothing is."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

from coordsim.protocol.messages import Op
from real_backend.profile.process import Process
from real_backend.profile.steps import Collective, StepRecorder
from real_backend.stream import Parameter

GATHERS = ("all_gather_single", "all_gather_into_tensor")
REDUCES = ("reduce_scatter_single", "reduce_scatter_tensor", "all_reduce")
"""As torch calls them since 2.13, and before."""


class Fsdp:
    """What FSDP2's modules get when they are loaded, each by a method named after it."""

    def __init__(self, process: Process) -> None:
        self._process, self._session = process, process.session
        self._running: Collective | None = None
        """What this thread's FSDP is filling the buffer of."""
        self._parameters: dict[int, Parameter] = {}

    # Collectives.

    def collectives(self, module: Any) -> None:
        module.dist = _Told(module.dist, self._around)

    def group(self, module: Any) -> None:
        module.foreach_all_gather = self._filling(module.foreach_all_gather, Op.ALLGATHER)
        module.foreach_reduce = self._filling(module.foreach_reduce, Op.REDUCESCATTER)

    def _filling(self, plain: Callable[..., Any], op: Op) -> Callable[..., Any]:
        """A group's gather or reduction: from here on its buffer is filled."""

        @wraps(plain)
        def filled(fsdp_params: Any, *arguments: Any, **more: Any) -> Any:
            self._running = None if self._session.over else self._session.quietly(self._begin, op, fsdp_params)
            try:
                return plain(fsdp_params, *arguments, **more)
            finally:
                self._running = None

        return filled

    def _begin(self, op: Op, fsdp_params: Any) -> Collective | None:
        sink = self._session.sink
        if not isinstance(sink, StepRecorder):
            return None
        parameters = [self._parameter(each) for each in fsdp_params]
        return sink.collective(op, parameters, 0, self._session.clock_ns())

    def _around(self, plain: Callable[..., Any], arguments: Any, more: Any) -> Any:
        running = self._running
        if running is None:
            return plain(*arguments, **more)
        self._session.quietly(self._called, running, arguments, more)
        work = plain(*arguments, **more)
        self._session.quietly(self._returned, running, work)
        return work

    def _called(self, running: Collective, arguments: Any, more: Any) -> None:
        tensors = [*arguments, *more.values()]
        sizes = [each.numel() * each.element_size() for each in tensors if hasattr(each, "element_size")]
        if running.called_ns < 0:
            running.nbytes = max(sizes, default=0)
            running.called_ns = self._session.clock_ns()
        running.known = not any(getattr(each, "is_cuda", False) for each in tensors)

    def _returned(self, running: Collective, work: Any) -> None:
        if work is None:
            self._process.ended(running)
        else:
            self._process.ends(running, work.wait)

    # Readiness and the root.

    def param(self, module: Any) -> None:
        kind = module.FSDPParam
        plain = kind.init_unsharded_param

        @wraps(plain)
        def made(fsdp_param: Any, *arguments: Any, **more: Any) -> Any:
            known = hasattr(fsdp_param, "_unsharded_param")
            result = plain(fsdp_param, *arguments, **more)
            if not known and not self._session.over:
                self._session.quietly(self._watch, fsdp_param)
            return result

        kind.init_unsharded_param = made

    def _watch(self, fsdp_param: Any) -> None:
        tensor = fsdp_param._unsharded_param
        if tensor.requires_grad:
            stamp = self._session.stamper(self._parameter(fsdp_param))
            handle = tensor.register_post_accumulate_grad_hook(stamp)
            self._session.at_stop(handle.remove)

    def _parameter(self, fsdp_param: Any) -> Parameter:
        found = self._parameters.get(id(fsdp_param))
        if found is None:
            sharded = fsdp_param.sharded_param
            found = self._process.parameter(fsdp_param._param_fqn or f"unnamed.{len(self._parameters)}", sharded)
            self._parameters[id(fsdp_param)] = found
        return found

    def state(self, module: Any) -> None:
        kind = module.FSDPState
        plain = kind._lazy_init

        @wraps(plain)
        def begun(state: Any) -> Any:
            known = state._is_root is not None
            result = plain(state)
            if not known and state._is_root and not self._session.over:
                self._session.quietly(self._root, state._modules[0])
            return result

        kind._lazy_init = begun

    def _root(self, module: Any) -> None:
        """A root's first forward pass begins."""
        self._session.rooted = True
        self._process.record()
        handle = module.register_forward_pre_hook(self._forward, prepend=True)
        self._session.at_stop(handle.remove)
        self._forward()

    def _forward(self, *_: Any) -> None:
        import torch

        if torch.is_grad_enabled() and not self._session.over:
            self._session.quietly(self._session.mark, "forward")


class _Told:
    """:mod:`torch.distributed` as FSDP2's collectives see it: a few functions say when they are called."""

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
