"""The record of this process and its end; every hook goes through :meth:`Session.quietly`."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

from real_backend.profile.cpu import Clocks, CpuClocks
from real_backend.profile.presence import Presence, Stage

if TYPE_CHECKING:
    from coordsim.record.ranks.reader import SpanKind
    from real_backend.profile.steplog import EndedStep, StepLog
    from real_backend.stream import Parameter, StepDetails

SPARE_STEPS = 2
"""Number of steps for which hooks stay after the last recorded one, since a mark may come before its gradients."""


class Sink(Protocol):
    """A record stream of this process: an engine's, or :class:`real_backend.profile.steps.StepRecorder`."""

    def mark(self, what: str, now_ns: int, details: StepDetails | None = None) -> None: ...

    def ready(self, parameter: Parameter, now_ns: int) -> None: ...


class Session:
    """The hooks of one process, which are removed once the steps that are wanted have been recorded."""

    def __init__(
        self, folder: Path, steps: int, clock_ns: Callable[[], int] = time.perf_counter_ns,
        tell: Callable[[str], None] | None = None, cpu: Callable[[], Clocks] | None = None,
    ) -> None:  # fmt: skip
        """``steps`` includes the cold step."""
        self.folder, self.steps, self.clock_ns = folder, steps, clock_ns
        self.over = False
        self.sink: Sink | None = None
        self.rooted = False
        """Whether DDP or FSDP names the module at which forward begins."""
        self.presence = Presence()
        self.without_sink: Callable[[], None] = lambda: None
        """Called when a backward pass begins without a record; it may attach a sink."""
        self.when_recorded: Callable[[], None] = lambda: None
        """Called when the last step that is wanted has ended."""
        self.when_over: Callable[[], None] = lambda: None
        """Called when the hooks have been removed because all steps have been recorded."""
        self.models: WeakSet[Any] = WeakSet()
        """Models that were called with gradients on before there was a sink."""
        self._cpu = CpuClocks() if cpu is None else cpu
        self._log: StepLog | None = None
        self._thread: int | None = None
        self._tell = tell or (lambda text: print(text, file=sys.stderr, flush=True))
        self._on_start: list[Callable[[], Callable[[], None]]] = []
        self._on_stop: list[Callable[[], None]] = []
        self._started = self._spending = False
        self._steps_ended = 0

    @property
    def log(self) -> StepLog:
        """The step log, made when it is first needed, since processes that never load torch load this module, too."""
        if self._log is None:
            from real_backend.profile.steplog import StepLog

            self._log = StepLog(self._cpu)
        return self._log

    # Hooks come and go.

    def at_start(self, install: Callable[[], Callable[[], None]]) -> None:
        """Have ``install`` called by :meth:`start`; the function that it returns removes the hooks again."""
        self._on_start.append(install)
        if self._started and not self.over:
            self.quietly(self._start)

    def at_stop(self, remove: Callable[[], None]) -> None:
        """Have ``remove`` called once, when the record is over."""
        self._on_stop.append(remove)

    def start(self) -> None:
        """Install the hooks, since the script is about to train. Does nothing if they are installed."""
        if not self._started and not self.over:
            self._started = True
            self.quietly(self._start)

    def attach(self, sink: Sink) -> None:
        """Direct marks to ``sink`` from now on, and install the hooks."""
        if self.over:
            return
        before, self.sink = self.sink, sink
        if before is not None and hasattr(before, "abandon"):
            before.abandon()
        self._steps_ended = 0
        if self._log is not None:
            self._log.announce()
        path = getattr(sink, "path", None)
        if path is not None:
            self.presence.open(path)
        if self._log is not None and self._log.first_forward_ns is not None:
            sink.mark("forward", self._log.first_forward_ns)
        self.start()

    # What the hooks tell. All of it is about the thread that trains; others are ignored.

    def called(self, model: Any, gradients: bool, name: str | None = None) -> None:
        """A root module is called."""
        if not self._trains(gradients):
            return
        now_ns = self.clock_ns()
        self._release()
        if self.over:
            return
        if self.sink is None and gradients:
            self.models.add(model)
        place = self.log.index("models", (type(model).__name__, id(model)), name or type(model).__name__)
        if self.log.called(place, now_ns, gradients, bool(getattr(model, "training", True))) and self.sink is not None:
            self.sink.mark("forward", now_ns)
        self.presence.put(self._steps_ended, Stage.FORWARD if gradients else Stage.EVALUATION, now_ns)

    def returned(self) -> None:
        """The root module called last has returned."""
        if self._trains(False):
            self.log.returned(self.clock_ns())

    def backward(self) -> None:
        """``torch.autograd.backward`` is called."""
        if not self._trains(True):
            return
        if self.sink is None:
            self.without_sink()
        now_ns = self.clock_ns()
        self._release()
        if self.over:
            return
        if self.log.backward(now_ns) and self.sink is not None:
            self.sink.mark("backward", now_ns)
        self.presence.put(self._steps_ended, Stage.BACKWARD, now_ns)

    def backward_over(self) -> None:
        if self._trains(False):
            now_ns = self.clock_ns()
            self.log.backward_over(now_ns)
            self.presence.put(self._steps_ended, Stage.AFTER_BACKWARD, now_ns)

    def optimizer(self, optimizer: Any) -> None:
        """An optimizer's ``step`` is called."""
        if self._trains(False):
            now_ns = self.clock_ns()
            self.log.optimizer(optimizer, self._place(optimizer), now_ns)
            self.presence.put(self._steps_ended, Stage.OPTIMIZER, now_ns)

    def optimizer_over(self, optimizer: Any) -> None:
        """The optimizer's ``step`` has returned."""
        if self._trains(False):
            now_ns = self.clock_ns()
            self._deliver(self.log.optimizer_over(optimizer, now_ns))
            self._between(now_ns)

    def skipped(self, optimizer: Any, begin_ns: int) -> None:
        """GradScaler has not called ``optimizer``, because a gradient was not finite."""
        if self._trains(False):
            now_ns = self.clock_ns()
            self._deliver(self.log.skipped(self._place(optimizer), begin_ns, now_ns))
            self._between(now_ns)

    def closure(self) -> None:
        if self._trains(False):
            self.log.closure(self.clock_ns())

    def closure_over(self) -> None:
        if self._trains(False):
            self.log.closure_over(self.clock_ns())

    def spends(self, stage: Stage) -> int | None:
        """Input or a checkpoint begins; return when.

        The result is None if it is part of another span, or is not recorded.
        """
        if self._spending or not self._trains(False):
            return None
        self._spending = True
        now_ns = self.clock_ns()
        self.presence.put(self._steps_ended, stage, now_ns)
        return now_ns

    def spent(self, kind: SpanKind, begin_ns: int) -> None:
        """The input or checkpoint that began at ``begin_ns`` is over."""
        self._spending = False
        if self._trains(False):
            now_ns = self.clock_ns()
            self._release()
            self.log.spent(kind, begin_ns, now_ns)
            self._between(now_ns)

    def _between(self, now_ns: int) -> None:
        if not self.over:
            self.presence.put(self._steps_ended, Stage.BETWEEN, now_ns)

    def _trains(self, decides: bool) -> bool:
        """Return whether the calling thread is the one that trains: the first that called a model with gradients on."""
        if self.over:
            return False
        if self._thread is None and decides:
            self._thread = threading.get_ident()
        return self._thread is None or self._thread == threading.get_ident()

    def _place(self, optimizer: Any) -> int:
        """Return an optimizer's place in the log.

        Optimizers of one class over the same parameters count as one, since some scripts make a new one every epoch.
        """
        kind = type(optimizer).__name__
        groups = getattr(optimizer, "param_groups", None) or [{}]
        first = next(iter(groups[0].get("params", ())), None)
        return self.log.index("optimizers", (kind, id(optimizer) if first is None else id(first)), kind)

    # Steps.

    def _release(self) -> None:
        """Deliver a step whose end was held back."""
        if self._log is not None:
            self._deliver(self._log.release())

    def _deliver(self, ended: EndedStep | None) -> None:
        if ended is None or self.sink is None:
            return
        self.sink.mark("step", ended.end_ns, ended.details)
        self._steps_ended += 1
        if self._steps_ended == self.steps:
            self.when_recorded()
        if self._steps_ended >= self.steps + SPARE_STEPS:
            self.stop()
            self.presence.put(self.steps, Stage.OVER, self.clock_ns())
            self.when_over()

    def release(self) -> None:
        """Deliver a step whose end was held back, at the end of the process."""
        self.quietly(self._release)

    def stamper(self, parameter: Parameter) -> Callable[[Any], None]:
        """Return a hook that stamps a gradient of ``parameter``. It is short, since it runs once for every gradient."""
        clock_ns = self.clock_ns

        def stamp(_: Any) -> None:
            sink = self.sink
            if sink is None or self.over:
                return
            try:
                sink.ready(parameter, clock_ns())
            except Exception as error:
                self._fault(error)

        return stamp

    def stop(self) -> None:
        """End the record and remove the hooks."""
        if not self.over:
            with suppress(Exception):
                self._release()
        self.over = True
        removes, self._on_stop = self._on_stop, []
        for remove in removes:
            with suppress(Exception):
                remove()

    def forget(self) -> None:
        """Drop the record in a forked child of a process that records: the record is the parent's."""
        self.over, self.sink, self._on_stop = True, None, []
        self.when_recorded = self.when_over = lambda: None
        self.presence = Presence()

    def quietly(self, what: Callable[..., Any], *arguments: Any) -> Any:
        """Return ``what(*arguments)``, or None on a fault, which is reported once and ends the record, never the
        training."""
        try:
            return what(*arguments)
        except Exception as error:
            self._fault(error)
            return None

    def _fault(self, error: Exception) -> None:
        first, self.over = not self.over, True
        if first:
            self._tell(
                f"coordsim profile: recording ended in process {os.getpid()} (training goes on): "
                f"{type(error).__name__}: {error}"
            )
            self.stop()

    def _start(self) -> None:
        installs, self._on_start = self._on_start, []
        for install in installs:
            self._on_stop.append(install())
