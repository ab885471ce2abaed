"""DistributedDataParallel: readiness of parameters, and collectives of buckets by a hook that reduces as DDP does."""

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
    """Wraps :mod:`torch.nn.parallel.distributed` when it is loaded."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._models: WeakKeyDictionary[Any, _Model] = WeakKeyDictionary()

    def loaded(self, module: ModuleType) -> None:
        """Wrap the class's ``__init__`` and the functions that register communication hooks."""
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
        """Return ``hook`` with its begin and its end stamped."""
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
    """One model that DDP has wrapped."""

    def __init__(self, process: Process, model: Any) -> None:
        self._process, self._session = process, process.session
        self._group, self._ranks = model.process_group, model.process_group.size()
        self.plain = not model._comm_hooks and not any(getattr(each, "sparse", False) for each in model.modules())
        """Whether DDP itself reduces, as far as is known, so that :meth:`_reduce` can take its place."""
        self.reduces = False
        self.theirs: tuple[object, Callable[..., Any]] | None = None
        """A hook that the script registered after the first forward pass."""
        self._names = {
            id(each): process.parameter(name, each)
            for name, each in model.module.named_parameters() if each.requires_grad
        }  # fmt: skip
        self._homes: dict[int, int] = {}
        """Address of each gradient when it became ready, by its parameter's id; kept only where it decides how DDP
        divides."""
        self._begun = False
        self._session.rooted = True
        watched = [each for each in model.module.parameters() if each.requires_grad]
        stamp = self._session.stamper
        handles = [each.register_post_accumulate_grad_hook(stamp(self._names[id(each)])) for each in watched]
        if model.gradient_as_bucket_view and self._ranks & (self._ranks - 1):
            for parameter in watched:  # Not removed at the end of the record, since the hook that reduces stays, too.
                parameter.register_post_accumulate_grad_hook(self._lies)
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
        """Record that a bucket is full and its collective begins; None if no record takes collectives."""
        sink = self._session.sink
        if not isinstance(sink, StepRecorder):
            return None
        buffer = bucket.buffer()
        parameters = [self._names[id(each)] for each in bucket.parameters() if id(each) in self._names]
        nbytes = buffer.numel() * buffer.element_size()
        collective = sink.collective(Op.ALLREDUCE, parameters, nbytes, self._session.clock_ns())
        collective.known = not buffer.is_cuda
        return collective

    def _reduce(self, state: object, bucket: Any) -> Any:
        """Reduce a bucket with the same result as DDP without a hook, to the bit."""
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
        if buffer.is_cuda:  # The future of NCCL is done once the collective is launched, so nothing blocks here.
            return work.get_future().then(lambda done: done.value()[0])
        return self._future_of(work, buffer, begun)

    def _future_of(self, work: Any, buffer: Any, begun: Collective | None) -> Any:
        """Return a future that holds ``buffer`` once ``work`` is done, and raises if ``work`` fails.

        The error is raised in a callback, since DDP in C++ takes an exception that is set on a Python future for a
        value.
        """
        import torch

        over: Any = torch.futures.Future()
        failed: list[BaseException] = []

        def value(_: Any) -> Any:
            if failed:
                raise failed[0]
            return buffer

        def finish(error: BaseException | None) -> None:
            if begun is not None:
                self._process.ended(begun)
            if error is not None:
                failed.append(error)
            over.set_result(None)

        result = over.then(value)
        self._process.waiter.after(work.wait, finish)
        return result

    def _average(self, bucket: Any, buffer: Any) -> None:
        """Divide a bucket by the number of ranks as DDP does.

        DDP multiplies a gradient by 1 / N while it copies it into the bucket, and divides a gradient that already lies
        there. The two differ in the last bit unless N is a power of two.
        """
        home = buffer.untyped_storage().data_ptr()
        lies = [self._homes.get(id(each)) == home for each in bucket.parameters()] if self._homes else []
        if not any(lies):
            buffer.mul_(1.0 / self._ranks)
        else:
            for gradient, there in zip(bucket.gradients(), lies, strict=True):
                gradient.div_(self._ranks) if there else gradient.mul_(1.0 / self._ranks)


def _joins(model: Any) -> bool:
    """Return whether ranks may end early, so that the others divide by the number of ranks left, which no hook is
    given."""
    return bool(model._join_config.enable) and not model._divide_by_initial_world_size
