"""Where forward and backward begin and where the optimizer's step ends, without a word in the script."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from real_backend.profile.session import Session


def install(session: Session) -> Callable[[], None]:
    """Put the hooks on torch; returns what takes them off. The optimizer's hook is torch's own, and so is forward's."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

    forward = _Forward(session)
    running: list[Any] = []
    """Optimizers whose step runs, each called by the one before it: ZeroRedundancyOptimizer has one of its own."""

    def stepping(optimizer: Any, *_: Any) -> None:
        if optimizer in running:  # its last step raised
            del running[running.index(optimizer) :]
        running.append(optimizer)

    def stepped(optimizer: Any, *_: Any) -> None:
        if optimizer in running:
            del running[running.index(optimizer) :]
        if not running:
            session.quietly(session.mark, "step")
            forward.arm()

    handles = [register_optimizer_step_pre_hook(stepping), register_optimizer_step_post_hook(stepped)]
    plain = torch.autograd.backward

    @wraps(plain)
    def backward(*arguments: Any, **more: Any) -> Any:
        session.quietly(session.mark, "backward")
        return plain(*arguments, **more)

    torch.autograd.backward = backward
    forward.arm()

    def remove() -> None:
        for handle in handles:
            handle.remove()
        forward.disarm()
        if torch.autograd.backward is backward:
            torch.autograd.backward = plain

    return remove


def untraced(hook: Callable[..., Any]) -> Callable[..., Any]:
    """``hook`` on a module that the script may compile: dynamo calls it, and does not look into it and complain."""
    import torch

    found: Callable[..., Any] = torch.compiler.disable(hook)  # type: ignore[no-untyped-call]
    return found


class _Forward:
    """A hook on whatever module is called next, once a step; gone as soon as it has been called with gradients on.

    Not needed where DDP or FSDP say which module is the root.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._handle: Any = None

    def arm(self) -> None:
        from torch.nn.modules.module import register_module_forward_pre_hook

        if self._handle is None and not self._session.rooted and not self._session.over:
            self._handle = register_module_forward_pre_hook(self._called)

    def disarm(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _called(self, *_: Any) -> None:
        self._session.quietly(self._begin)

    def _begin(self) -> None:
        import torch

        if self._session.rooted:
            self.disarm()
        elif torch.is_grad_enabled():
            self.disarm()
            self._session.mark("forward")
