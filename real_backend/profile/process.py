"""State that the hooks of one process share: the record, which is begun when first needed, and ends of collectives."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakSet

from coordsim.record.ranks.reader import SUFFIX
from real_backend.leaving import at_exit
from real_backend.life.clocks import Offset
from real_backend.profile import CONTROL_PLANE, lives
from real_backend.profile.clocks import offset_from_rank_0
from real_backend.profile.launch import INITIALIZED, RECORDED, SINGLE
from real_backend.profile.lives import Lives
from real_backend.profile.presence import Stage
from real_backend.profile.session import Session
from real_backend.profile.steps import Collective, StepRecorder
from real_backend.profile.waiter import Waiter
from real_backend.stream import Parameter, append_end

NO_FRAMEWORK = "none"
"""The framework in the settings of a record whose script calls collectives itself, or none; they are not recorded."""
LONGEST_WAIT_S = 60.0
"""Longest wait, at the end of the process with ``--then-stop``, for ranks that still record."""
OURS = "coord"
"""The backend whose engine keeps clocks and collectives itself."""


class Process:
    """The hooks of one process, whose rank is known once ``init_process_group`` returns."""

    def __init__(self, session: Session, lives: Lives) -> None:
        self.session, self.waiter, self.lives = session, Waiter(), lives
        self._clock: Offset | None = None
        self._counted = False
        self._ranks: int | None = None
        self._recorder: StepRecorder | None = None
        self._optimizers: WeakSet[Any] = WeakSet()
        session.without_sink = self._record_without_framework
        session.when_recorded = self._note_recorded
        lives.on_end = self._ends
        os.register_at_fork(after_in_child=self._forked)

    # The process group.

    def loaded(self, module: ModuleType) -> None:
        """Wrap ``init_process_group`` in :mod:`torch.distributed.distributed_c10d`."""
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
        rank, ranks = c10d.get_rank(), c10d.get_world_size()
        if not self._counted:
            self._counted = True
            with (folder / INITIALIZED).open("a") as file:
                file.write(f"{rank}\n")
        self._drop_recorder(ranks)
        self.lives.begins(rank, ranks, "initialized")
        self._ranks = ranks
        if self.session.over:
            return
        if self.session.sink is None:
            self.session.presence.open(folder / f"rank-{rank:05d}{SUFFIX}")
            self.session.presence.put(0, Stage.STARTED, self.session.clock_ns())
        if c10d.get_backend() != OURS:
            self._clock = offset_from_rank_0(c10d._get_default_store(), rank, ranks, self.session.clock_ns)

    def _drop_recorder(self, ranks: int) -> None:
        """End a running record when another process group begins, since the record is of another job."""
        recorder = self._recorder
        if recorder is None:
            return
        if self.session.sink is not recorder:  # An engine has taken the file over.
            self._recorder = None
            return
        if recorder.unranked or not recorder.steps_ended:
            recorder.discard()
            self._recorder, self.session.sink = None, None
        elif self._ranks not in (None, ranks):
            recorder.close(f"the number of ranks changed from {self._ranks} to {ranks}")
            self.session.stop()

    # The record.

    def record(self, framework: str) -> None:
        """Begin a record without cycles, unless a record runs already. Raises OSError."""
        import torch.distributed as dist

        if self._recorder is not None and self._recorder.framework == NO_FRAMEWORK and not self._recorder.steps_ended:
            self._recorder.discard()
            self._recorder, self.session.sink = None, None
        if self.session.sink is None and dist.is_initialized():
            self._begin(dist.get_rank(), dist.get_world_size(), framework, dist.get_backend())

    def _begin(self, rank: int, ranks: int, framework: str, backend: str | None, unranked: bool = False) -> None:
        session = self.session
        settings = {"control_plane": CONTROL_PLANE, "backend": backend, "framework": framework}
        recorder = StepRecorder(
            session.folder, rank, ranks, job=os.environ.get("TORCHELASTIC_RUN_ID", "job"),
            settings=settings, steps=session.steps, clock=self._clock, clock_ns=session.clock_ns,
        )  # fmt: skip
        recorder.framework, recorder.unranked = framework, unranked
        at_exit(partial(self._left, recorder))
        session.at_stop(recorder.close)
        self._recorder = recorder
        session.attach(recorder)

    def optimizers(self, module: ModuleType) -> None:
        """Wrap the constructor in :mod:`torch.optim.optimizer`: a script that makes an optimizer is about to train."""
        kind = module.Optimizer
        plain = kind.__init__

        @wraps(plain)
        def made(optimizer: Any, *arguments: Any, **more: Any) -> None:
            plain(optimizer, *arguments, **more)
            if not self.session.over:
                self._optimizers.add(optimizer)
                self.session.start()

        kind.__init__ = made

    def _record_without_framework(self) -> None:
        """Begin a record where neither DDP, FSDP nor an engine records. Raises OSError.

        The parts of steps and the readiness of gradients can be recorded without them. It is called at a backward pass.
        """
        import torch.distributed as dist

        if not self._optimizers:
            return
        rank, ranks, backend = 0, 1, None
        initialized = dist.is_available() and dist.is_initialized()
        if initialized:
            rank, ranks, backend = dist.get_rank(), dist.get_world_size(), dist.get_backend()
        elif os.environ.get("RANK", "").isdecimal() and os.environ.get("WORLD_SIZE", "").isdecimal():
            rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        elif not self._claims():
            return
        self._begin(rank, ranks, NO_FRAMEWORK, backend, unranked=not initialized)
        if not initialized:
            self.lives.begins(rank, ranks, "alone")
        self._watch_parameters()

    def _claims(self) -> bool:
        """Return whether this process is the one that records, of several without ranks."""
        path = self.session.folder / SINGLE
        try:
            with path.open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            owner = path.read_text()
            if owner != str(os.getpid()) and owner.isdecimal() and Path(f"/proc/{owner}").exists():
                return False
            path.write_text(str(os.getpid()))
        return True

    def _watch_parameters(self) -> None:
        """Stamp gradients of the optimizers' parameters, by their names in the model that was called."""
        names = {id(each): name for model in self.session.models for name, each in model.named_parameters()}
        watched: set[int] = set()
        for optimizer in list(self._optimizers):
            for place, group in enumerate(optimizer.param_groups):
                for index, parameter in enumerate(group["params"]):
                    if not parameter.requires_grad or not parameter.is_leaf or id(parameter) in watched:
                        continue
                    watched.add(id(parameter))
                    name = names.get(id(parameter), f"group {place}.{index}")
                    stamp = self.session.stamper(self.parameter(name, parameter))
                    self.session.at_stop(parameter.register_post_accumulate_grad_hook(stamp).remove)

    # Ends.

    def _note_recorded(self) -> None:
        """Note that this process has recorded all the steps that are wanted."""
        with (self.session.folder / RECORDED).open("a") as file:
            file.write(f"{self._rank}\n")

    def leave_when_all_have(self) -> None:
        """End the process with exit code 0 once every rank has recorded its steps (``--then-stop``).

        No collective is running then, and no ``finally`` of the script writes a checkpoint of unfinished training.
        """
        path, ranks = self.session.folder / RECORDED, self.lives.ranks or 1
        until = time.monotonic() + LONGEST_WAIT_S
        while len(set(path.read_text().split())) < ranks:
            if time.monotonic() > until:
                return
            time.sleep(0.01)
        self.lives.ends("exit", code=0)
        for child in multiprocessing.active_children():
            child.terminate()
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        lives.plain_exit(0)

    def _ends(self, said: dict[str, Any]) -> None:
        """Append how the process ends to its record, which another component may have written."""
        if self._rank is not None:
            append_end(self.session.folder / f"rank-{self._rank:05d}{SUFFIX}", **said)

    @property
    def _rank(self) -> int | None:
        """The rank; None if it is not known. An engine's record has it in its name."""
        path = getattr(self.session.sink, "path", None)
        return int(path.stem.rpartition("-")[2]) if self.lives.rank is None and path is not None else self.lives.rank

    def _left(self, recorder: StepRecorder) -> None:
        self.session.release()
        recorder.close(_uncaught())

    def _forked(self) -> None:
        """Leave the record to the parent, in a child that a recording process has forked."""
        if self.session.sink is not None:
            self.session.forget()

    @staticmethod
    def parameter(name: str, tensor: Any) -> Parameter:
        nbytes = tensor.numel() * tensor.element_size()
        return Parameter(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), nbytes)

    def ends(self, collective: Collective, wait: Callable[[], Any]) -> None:
        """Stamp ``collective`` when ``wait`` returns, except on a GPU, where this would not be its end."""
        if collective.known:
            self.waiter.after(wait, lambda _: self.ended(collective))

    def ended(self, collective: Collective) -> None:
        """Stamp the end of ``collective`` with the present time."""
        if collective.known:
            collective.end_ns = self.session.clock_ns()


def _uncaught() -> str:
    error = getattr(sys, "last_value", None)
    return "" if error is None else f"{type(error).__name__}: {error}"
