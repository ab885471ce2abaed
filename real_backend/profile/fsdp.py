"""``fully_shard`` (FSDP2): readiness of parameters, and gathers and reductions of groups.

FSDP2 has no hooks for this, so functions of torch's own modules are wrapped as they are loaded. Where a torch release
lacks one of these functions, the record ends with a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from typing import Any

from coordsim.protocol.messages import Op
from real_backend.profile.filling import Filling
from real_backend.profile.marks import called, untraced
from real_backend.profile.process import Process
from real_backend.stream import Parameter


class Fsdp:
    """Wraps FSDP2's modules when they are loaded, each by a method named after it."""

    def __init__(self, process: Process) -> None:
        self._process, self._session = process, process.session
        self._filling = Filling(process)
        self._parameters: dict[int, Parameter] = {}

    # Collectives.

    def collectives(self, module: Any) -> None:
        self._filling.watch(module)

    def group(self, module: Any) -> None:
        module.foreach_all_gather = self._filling.wrap(module.foreach_all_gather, Op.ALLGATHER, self._of_group)
        module.foreach_reduce = self._filling.wrap(module.foreach_reduce, Op.REDUCESCATTER, self._of_group)

    def _of_group(self, fsdp_params: Any, *_: Any, **__: Any) -> Sequence[Parameter]:
        return [self._parameter(each) for each in fsdp_params]

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
        parameter = self._parameters.get(id(fsdp_param))
        if parameter is None:
            sharded = fsdp_param.sharded_param
            parameter = self._process.parameter(fsdp_param._param_fqn or f"unnamed.{len(self._parameters)}", sharded)
            self._parameters[id(fsdp_param)] = parameter
        return parameter

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
        """Register the hook of a root whose first forward pass begins."""
        self._session.rooted = True
        self._process.record("fsdp2")
        handle = module.register_forward_pre_hook(untraced(self._forward), prepend=True)
        self._session.at_stop(handle.remove)
        self._forward(module)

    def _forward(self, module: Any, *_: Any) -> None:
        import torch

        if not self._session.over:
            self._session.quietly(called, self._session, module, torch.is_grad_enabled())
