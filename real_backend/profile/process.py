"""What hooks of one process share: the record, begun when it is first needed, and the ends of collectives."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial, wraps
from types import ModuleType
from typing import Any

from real_backend.leaving import at_exit
from real_backend.life.clocks import Offset
from real_backend.profile import CONTROL_PLANE
from real_backend.profile.clocks import offset_from_rank_0
from real_backend.profile.launch import INITIALIZED
from real_backend.profile.session import Session
from real_backend.profile.steps import Collective, StepRecorder
from real_backend.profile.waiter import Waiter
from real_backend.stream import Parameter

OURS = "coord"
"""The backend whose engine keeps clocks and collectives itself."""


class Process:
    """One process; its rank is known once ``init_process_group`` returns."""

    def __init__(self, session: Session) -> None:
        self.session, self.waiter = session, Waiter()
        self._clock: Offset | None = None
        self._counted = False

    def loaded(self, module: ModuleType) -> None:
        """Wraps ``init_process_group`` in :mod:`torch.distributed.distributed_c10d`."""
        plain = module.init_process_group

        @wraps(plain)
        def init_process_group(*arguments: Any, **more: Any) -> Any:
            result = plain(*arguments, **more)
            if not self.session.over:
                self.session.quietly(self._initialized, module)
            return result

        module.init_process_group = init_process_group  # type: ignore[attr-defined]

    def _initialized(self, c10d: Any) -> None:
        folder = self.session.folder
        folder.mkdir(parents=True, exist_ok=True)
        if not self._counted:
            self._counted = True
            with (folder / INITIALIZED).open("a") as told:
                told.write(f"{c10d.get_rank()}\n")
        if c10d.get_backend() != OURS:
            store, rank, ranks = c10d._get_default_store(), c10d.get_rank(), c10d.get_world_size()
            self._clock = offset_from_rank_0(store, rank, ranks, self.session.clock_ns)

    def record(self) -> None:
        """Begin a record without cycles, unless somebody records already. Raises OSError."""
        import torch.distributed as dist

        session = self.session
        if session.sink is not None or not dist.is_initialized():
            return
        settings = {"control_plane": CONTROL_PLANE, "backend": dist.get_backend()}
        recorder = StepRecorder(
            session.folder, dist.get_rank(), dist.get_world_size(), job=os.environ.get("TORCHELASTIC_RUN_ID", "job"),
            settings=settings, steps=session.steps, clock=self._clock, clock_ns=session.clock_ns,
        )  # fmt: skip
        at_exit(partial(self._left, recorder))
        session.at_stop(recorder.close)
        session.attach(recorder)

    def _left(self, recorder: StepRecorder) -> None:
        self.session.release()
        recorder.close(_uncaught())

    @staticmethod
    def parameter(name: str, tensor: Any) -> Parameter:
        nbytes = tensor.numel() * tensor.element_size()
        return Parameter(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), nbytes)

    def ends(self, collective: Collective, wait: Callable[[], Any]) -> None:
        """Stamp ``collective`` when ``wait`` returns; on a GPU that would tell nothing."""
        if collective.known:
            self.waiter.after(wait, lambda _: self.ended(collective))

    def ended(self, collective: Collective) -> None:
        """It is over now."""
        if collective.known:
            collective.end_ns = self.session.clock_ns()


def _uncaught() -> str:
    error = getattr(sys, "last_value", None)
    return "" if error is None else f"{type(error).__name__}: {error}"
