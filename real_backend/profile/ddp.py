"""DistributedDataParallel: readiness by parameter, and each bucket's collective, by a hook that reduces as DDP does."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from coordsim.protocol.messages import Op
from real_backend.profile.marks import called, untraced
from real_backend.profile.process import Process
from real_backend.profile.steps import Collective, StepRecorder


class Ddp:
    """What :mod:`torch.nn.parallel.distributed` gets when it is loaded."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._models: WeakKeyDictionary[Any, _Model] = WeakKeyDictionary()

    def loaded(self, module: ModuleType) -> None:
        """Wraps the class's ``__init__`` and what registers hooks."""
        kind = module.DistributedDataParallel
        init, register, builtin = kind.__init__, kind.register_comm_hook, kind._register_builtin_comm_hook

        @wraps(init)
        def made(model: Any, *arguments: Any, **more: Any) -> None:
            init(model, *arguments, **more)
            self._process.session.quietly(self._made, model)

        @wraps(register)
        def registered(model: Any, state: object, hook: Callable[..., Any]) -> Any:
            known = self._models.get(model)
            if known is not None and known.reduces:
                model._check_comm_hook(hook)
                model._comm_hooks.append((hook, state))
                known.theirs = (state, hook)
                return None
            return register(model, state, self._process.session.quietly(self._around, model, hook) or hook)

        @wraps(builtin)
        def built_in(model: Any, *arguments: Any) -> Any:
            if model in self._models:
                self._models[model].plain = False
            return builtin(model, *arguments)

        kind.__init__, kind.register_comm_hook, kind._register_builtin_comm_hook = made, registered, built_in

    def _made(self, model: Any) -> None:
        if not self._process.session.over:
            self._models[model] = _Model(self._process, model)

    def _around(self, model: Any, hook: Callable[..., Any]) -> Callable[..., Any]:
        """``hook`` with its begin and its end stamped."""
        session = self._process.session

        @wraps(hook)
        def stamped(state: object, bucket: Any) -> Any:
            known = self._models.get(model)
            begun = None if session.over or known is None else session.quietly(known.begin, bucket)
            if begun is not None:
                begun.called_ns = begun.asked_ns
            future = hook(state, bucket)
            if begun is not None:
                session.quietly(self._process.ends, begun, future.wait)
            return future

        return stamped


class _Model:
    """One wrapped model."""

    def __init__(self, process: Process, model: Any) -> None:
        self._process, self._session = process, process.session
        self._group, self._ranks = model.process_group, model.process_group.size()
        self.plain = not model._comm_hooks and not any(getattr(each, "sparse", False) for each in model.modules())
        """Whether DDP reduces by itself, as far as is known: then :meth:`_reduce` can do that for it."""
        self.reduces = False
        self.theirs: tuple[object, Callable[..., Any]] | None = None
        """A hook that the script registered after the first forward pass."""
        self._names = {
            id(each): process.parameter(name, each)
            for name, each in model.module.named_parameters() if each.requires_grad
        }  # fmt: skip
        self._homes: dict[int, int] = {}
        """Of a parameter: where the gradient lay when it was there; only where that decides how DDP divides."""
        self._begun = False
        self._session.rooted = True
        watched = [each for each in model.module.parameters() if each.requires_grad]
        stamp = self._session.stamper
        handles = [each.register_post_accumulate_grad_hook(stamp(self._names[id(each)])) for each in watched]
        if model.gradient_as_bucket_view and self._ranks & (self._ranks - 1):
            for each in watched:  # for good: what reduces stays when the record is over
                each.register_post_accumulate_grad_hook(self._lies)
        handles.append(model.register_forward_pre_hook(untraced(self._forward), prepend=True))
        self._kind = type(model.module).__name__
        for handle in handles:
            self._session.at_stop(handle.remove)

    def _lies(self, parameter: Any) -> None:
        self._homes[id(parameter)] = parameter.grad.untyped_storage().data_ptr()

    def _forward(self, model: Any, *_: Any) -> None:
        if not self._session.over:
            self._session.quietly(self._begin_forward, model)

    def _begin_forward(self, model: Any) -> None:
        import torch
        import torch.distributed as dist

        gradients = torch.is_grad_enabled()
        if gradients and not self._begun:
            self._begun = True
            self._process.record("ddp")
            plain = self.plain and not model._comm_hooks and not _joins(model)
            if plain and isinstance(self._session.sink, StepRecorder):
                self.reduces = True
                dist._register_comm_hook(model.reducer, None, self._reduce)
        called(self._session, model, gradients, self._kind)

    def begin(self, bucket: Any) -> Collective | None:
        """A bucket is full; None where nobody records such."""
        sink = self._session.sink
        if not isinstance(sink, StepRecorder):
            return None
        buffer = bucket.buffer()
        parameters = [self._names[id(each)] for each in bucket.parameters() if id(each) in self._names]
        nbytes = buffer.numel() * buffer.element_size()
        found = sink.collective(Op.ALLREDUCE, parameters, nbytes, self._session.clock_ns())
        found.known = not buffer.is_cuda
        return found

    def _reduce(self, state: object, bucket: Any) -> Any:
        """What DDP does without a hook, to the bit."""
        import torch.distributed as dist

        begun = None if self._session.over else self._session.quietly(self.begin, bucket)
        if self.theirs is not None:
            given, hook = self.theirs
            future = hook(given, bucket)
            if begun is not None:
                begun.called_ns = begun.asked_ns
                self._session.quietly(self._process.ends, begun, future.wait)
            return future
        buffer = bucket.buffer()
        self._average(bucket, buffer)
        if begun is not None:
            begun.called_ns = self._session.clock_ns()
        work = dist.all_reduce(buffer, group=self._group, async_op=True)
        if buffer.is_cuda:  # NCCL's future is done when the collective has been launched: nobody waits here
            return work.get_future().then(lambda done: done.value()[0])
        return self._over(work, buffer, begun)

    def _over(self, work: Any, buffer: Any, begun: Collective | None) -> Any:
        """A future with ``buffer`` once ``work`` is done. An exception that is given to a Python future is a value to
        C++, where DDP waits; one raised in a callback is an error."""
        import torch

        over: Any = torch.futures.Future()
        failed: list[BaseException] = []

        def value(_: Any) -> Any:
            if failed:
                raise failed[0]
            return buffer

        def told(error: BaseException | None) -> None:
            if begun is not None:
                self._process.ended(begun)
            if error is not None:
                failed.append(error)
            over.set_result(None)

        result = over.then(value)
        self._process.waiter.after(work.wait, told)
        return result

    def _average(self, bucket: Any, buffer: Any) -> None:
        """DDP multiplies by 1 / N while it copies a gradient into the bucket, and divides one that lies there already.

        The two differ in the last bit unless N is a power of two.
        """
        home = buffer.untyped_storage().data_ptr()
        lies = [self._homes.get(id(each)) == home for each in bucket.parameters()] if self._homes else []
        if not any(lies):
            buffer.mul_(1.0 / self._ranks)
        else:
            for gradient, there in zip(bucket.gradients(), lies, strict=True):
                gradient.div_(self._ranks) if there else gradient.mul_(1.0 / self._ranks)


def _joins(model: Any) -> bool:
    """Whether ranks may end early and the others then divide by how many are left, which no hook is told."""
    return bool(model._join_config.enable) and not model._divide_by_initial_world_size
