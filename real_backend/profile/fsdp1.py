"""``FullyShardedDataParallel`` (FSDP1), whose unit is the flat parameter of one wrapped module.

The readiness of its gradient, and gathers and reductions, are recorded as in :mod:`real_backend.profile.fsdp`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import wraps
from typing import Any

from coordsim.protocol.messages import Op
from real_backend.profile.filling import Filling
from real_backend.profile.marks import called
from real_backend.profile.process import Process
from real_backend.stream import Parameter

WRAPPED = "_fsdp_wrapped_module"
"""The part that FSDP1 adds to a module's name."""


class Fsdp1:
    """Wraps FSDP1's modules when they are loaded."""

    def __init__(self, process: Process) -> None:
        self._process, self._session = process, process.session
        self._filling = Filling(process)
        self._names: dict[int, str] = {}
        """Name of each module under the root, by the module's id."""
        self._parameters: dict[int, Parameter] = {}

    def flat(self, module: Any) -> None:
        self._filling.watch(module)
        kind = module.FlatParamHandle
        kind._all_gather_flat_param = self._filling.wrap(
            kind._all_gather_flat_param, Op.ALLGATHER, lambda handle, *_: self._of(handle)
        )

    def runtime(self, module: Any) -> None:
        self._filling.watch(module)
        for name, op in (("_reduce_grad", Op.REDUCESCATTER), ("_reduce_grad_no_shard", Op.ALLREDUCE)):
            plain = getattr(module, name)
            setattr(module, name, self._filling.wrap(plain, op, lambda _, handle: self._of(handle)))
        self._gradients(module)
        self._root(module)

    def _gradients(self, module: Any) -> None:
        plain = module._post_backward_hook

        @wraps(plain)
        def there(state: Any, handle: Any, *arguments: Any, **more: Any) -> Any:
            if not self._session.over:
                self._session.quietly(self._ready, handle)
            return plain(state, handle, *arguments, **more)

        module._post_backward_hook = there

    def _root(self, module: Any) -> None:
        plain = module._root_pre_forward

        @wraps(plain)
        def begun(state: Any, root: Any, *arguments: Any, **more: Any) -> Any:
            if state._is_root is not False and not self._session.over:  # None: it is about to become one
                self._session.quietly(self._forward, root)
            return plain(state, root, *arguments, **more)

        module._root_pre_forward = begun

    def _ready(self, handle: Any) -> None:
        sink = self._session.sink
        if sink is not None:
            for parameter in self._of(handle):
                sink.ready(parameter, self._session.clock_ns())

    def _forward(self, root: Any) -> None:
        import torch

        gradients = torch.is_grad_enabled()
        if gradients:
            self._session.rooted = True
            if id(root) not in self._names:
                self._names |= {id(each): name for name, each in root.named_modules()}
            self._process.record("fsdp1")
        called(self._session, root, gradients, type(getattr(root, WRAPPED, root)).__name__)

    def _of(self, handle: Any) -> Sequence[Parameter]:
        parameter = self._parameters.get(id(handle))
        if parameter is None:
            parts = self._names.get(id(handle._fully_sharded_module), f"unnamed.{len(self._parameters)}").split(".")
            name = ".".join([*(each for each in parts if each and each != WRAPPED), "_flat_param"])
            flat = handle.flat_param  # sharded or not, by the moment
            shape = tuple(flat._unpadded_unsharded_size)
            dtype, nbytes = str(flat.dtype).removeprefix("torch."), math.prod(shape) * flat.element_size()
            parameter = self._parameters[id(handle)] = Parameter(name, dtype, shape, nbytes)
        return [parameter]
