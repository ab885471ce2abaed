"""Marks of where passes, optimizers, input and checkpoints begin and end, without any change to the script."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

from coordsim.record.ranks.reader import SpanKind
from real_backend.profile.presence import Stage
from real_backend.profile.session import Session

Remove = Callable[[], None]


def install(session: Session) -> Remove:
    """Put the hooks on torch and return a function that removes them.

    The hooks of the optimizer and of forward are torch's own.
    """
    forward = _Forward(session)
    removes = [
        _optimizers(session, forward), _backward(session, forward), _grad_scaler(session), _input(session),
        _checkpoints(session), forward.disarm,
    ]  # fmt: skip
    forward.arm()

    def remove() -> None:
        for remove_one in removes:
            remove_one()

    return remove


def _optimizers(session: Session, forward: _Forward) -> Remove:
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

    def stepping(optimizer: Any, arguments: Any, more: Any) -> Any:
        session.quietly(session.optimizer, optimizer)
        closure = more.get("closure") or (arguments[1] if len(arguments) > 1 else None)
        if not callable(closure) or session.over or hasattr(closure, "_coordsim"):
            return None
        around = _closure(session, forward, closure)
        if more.get("closure") is closure:
            return arguments, {**more, "closure": around}
        return (arguments[0], around, *arguments[2:]), more

    def stepped(optimizer: Any, *_: Any) -> None:
        session.quietly(session.optimizer_over, optimizer)
        forward.arm()

    handles = [register_optimizer_step_pre_hook(stepping), register_optimizer_step_post_hook(stepped)]

    def remove() -> None:
        for handle in handles:
            handle.remove()

    return remove


def _closure(session: Session, forward: _Forward, closure: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``closure`` as it is given to an optimizer, with its begin and its end stamped."""

    def stamped(*arguments: Any, **more: Any) -> Any:
        session.quietly(session.closure)
        forward.arm()
        try:
            return closure(*arguments, **more)
        finally:
            session.quietly(session.closure_over)

    stamped._coordsim = True  # type: ignore[attr-defined]
    return stamped


def _backward(session: Session, forward: _Forward) -> Remove:
    import torch

    plain = torch.autograd.backward

    @wraps(plain)
    def backward(*arguments: Any, **more: Any) -> Any:
        session.quietly(session.backward)
        try:
            return plain(*arguments, **more)
        finally:
            session.quietly(session.backward_over)
            forward.arm()

    torch.autograd.backward = backward
    return lambda: _restore(torch.autograd, "backward", backward, plain)


def _grad_scaler(session: Session) -> Remove:
    """Observe ``GradScaler.step``, which ends an iteration also when it skips the optimizer."""
    import torch

    kind = torch.amp.GradScaler
    plain = kind.step

    @wraps(plain)
    def step(scaler: Any, optimizer: Any, *arguments: Any, **more: Any) -> Any:
        if session.over:
            return plain(scaler, optimizer, *arguments, **more)
        called = False

        def stepping(*_: Any) -> None:
            nonlocal called
            called = True

        begin_ns = session.clock_ns()
        hooked = getattr(optimizer, "register_step_pre_hook", None)
        handle = None if hooked is None else session.quietly(hooked, stepping)
        try:
            result = plain(scaler, optimizer, *arguments, **more)
        finally:
            if handle is not None:
                handle.remove()
        if handle is not None and not called and scaler.is_enabled():
            session.quietly(session.skipped, optimizer, begin_ns)
        return result

    kind.step = step  # type: ignore[method-assign, assignment]
    return lambda: _restore(kind, "step", step, plain)


def _input(session: Session) -> Remove:
    from torch.utils.data import dataloader

    kind = dataloader._BaseDataLoaderIter
    following = _timed(session, kind.__next__, Stage.INPUT, SpanKind.INPUT)
    plain, kind.__next__ = kind.__next__, following  # type: ignore[method-assign]
    return lambda: _restore(kind, "__next__", following, plain)


def _checkpoints(session: Session) -> Remove:
    import torch

    checkpoint = sys.modules.get("torch.distributed.checkpoint")
    places = [(torch, "save"), (checkpoint, "save"), (checkpoint, "async_save")]
    removes = [_saves(session, module, name) for module, name in places if hasattr(module, name)]

    def remove() -> None:
        for remove_one in removes:
            remove_one()

    return remove


def _saves(session: Session, module: Any, name: str) -> Remove:
    plain = getattr(module, name)
    save = _timed(session, plain, Stage.CHECKPOINT, SpanKind.CHECKPOINT)
    setattr(module, name, save)
    return lambda: _restore(module, name, save, plain)


def _timed(session: Session, plain: Callable[..., Any], stage: Stage, kind: SpanKind) -> Callable[..., Any]:
    """Return ``plain`` with its calls recorded as spans. A call inside another one (nested loaders) is part of that
    one."""

    @wraps(plain)
    def timed(*arguments: Any, **more: Any) -> Any:
        begin_ns = session.quietly(session.spends, stage)
        if begin_ns is None:
            return plain(*arguments, **more)
        try:
            return plain(*arguments, **more)
        finally:
            session.quietly(session.spent, kind, begin_ns)

    return timed


def _restore(owner: Any, name: str, ours: Any, plain: Any) -> None:
    """Restore ``plain``, unless other code has replaced our function meanwhile."""
    if getattr(owner, name, None) is ours:
        setattr(owner, name, plain)


def untraced(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``hook`` for a module that the script may compile: dynamo calls it without tracing into it."""
    import torch

    wrapped: Callable[..., Any] = torch.compiler.disable(hook)  # type: ignore[no-untyped-call]
    return wrapped


def called(session: Session, model: Any, gradients: bool, name: str | None = None, then: Remove | None = None) -> None:
    """Record that a root module is called, and register a hook for its return.

    The hook is there for this one call. It is left out where something is compiled and gradients are on, since dynamo
    would break the graph at the hook, and a graph broken in two gives other last bits.
    """
    session.called(model, gradients, name)
    if gradients and getattr(model, "training", True) and _compiles():
        return
    handle: list[Any] = []

    def returned(*_: Any) -> None:
        handle[0].remove()
        session.quietly(session.returned)
        if then is not None:
            then()

    handle.append(model.register_forward_hook(returned, always_call=True))


def _compiles() -> bool:
    """Return whether dynamo has traced any frame of this process."""
    return bool(getattr(sys.modules.get("torch._dynamo.convert_frame"), "FRAME_COUNTER", 0))


class _Forward:
    """A hook on the next module that is called, once a pass; it removes itself when it is called.

    It is not needed where DDP or FSDP name the root module.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._handle: Any = None
        warnings.filterwarnings("ignore", message=r"Using `torch\.compile\(module\)` when there are global hooks")

    def arm(self) -> None:
        if self._handle is None and not self._session.rooted and not self._session.over:
            from torch.nn.modules.module import register_module_forward_pre_hook

            self._handle = register_module_forward_pre_hook(self._called)

    def disarm(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _called(self, module: Any, *_: Any) -> None:
        self._session.quietly(self._begin, module)

    def _begin(self, module: Any) -> None:
        import torch

        self.disarm()
        if self._session.rooted:
            return
        gradients = torch.is_grad_enabled()
        called(self._session, module, gradients, then=None if gradients else self.arm)
