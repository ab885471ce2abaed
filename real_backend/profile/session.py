"""What this process records into, and when it is over; every hook goes through :meth:`Session.quietly`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from real_backend.stream import Parameter

SPARE_STEPS = 2
"""Hooks stay so many steps longer than the record: a mark may come before what belongs to it."""


class Sink(Protocol):
    """A stream of this process: an engine's, or :class:`real_backend.profile.steps.StepRecorder`."""

    def mark(self, what: str, now_ns: int) -> None: ...

    def ready(self, parameter: Parameter, now_ns: int) -> None: ...


class Session:
    """One process's hooks. They are few, and gone once the steps that are wanted have been recorded."""

    def __init__(
        self, folder: Path, steps: int, clock_ns: Callable[[], int] = time.perf_counter_ns,
        tell: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        """``steps`` includes the cold one."""
        self.folder, self.steps, self.clock_ns = folder, steps, clock_ns
        self.over = False
        self.sink: Sink | None = None
        self.rooted = False
        """Whether DDP or FSDP says where forward begins."""
        self._tell = tell or (lambda text: print(text, file=sys.stderr, flush=True))
        self._on_start: list[Callable[[], Callable[[], None]]] = []
        self._on_stop: list[Callable[[], None]] = []
        self._marks = 0
        self._forward = self._backward = False
        self._several = False
        """Whether several optimizers end a step, one after the other, as the first step shows. From then on its end is
        held until the next step begins; a process that is killed in between loses that step."""
        self._held_ns: int | None = None

    def at_start(self, install: Callable[[], Callable[[], None]]) -> None:
        """``install`` is called when there is a sink to write to; what it returns removes the hooks again."""
        self._on_start.append(install)
        if self.sink is not None and not self.over:
            self.quietly(self._start)

    def at_stop(self, remove: Callable[[], None]) -> None:
        """Called once, when the record is over."""
        self._on_stop.append(remove)

    def attach(self, sink: Sink) -> None:
        """From now on marks go to ``sink``, and hooks are there."""
        if not self.over:
            self.sink = sink
            self.quietly(self._start)

    def mark(self, what: str) -> None:
        """"forward" and "backward" count once a step, where they come first; "step" ends it."""
        sink = self.sink
        if sink is None or self.over:
            return
        if what == "step":
            if not self._backward:
                self._another(self._marks > 0 and not self._forward)
                return
            self._forward = self._backward = False
            self._marks += 1
        elif what == "forward":
            if self._forward:
                return
            self._forward = True
        else:
            if self._backward:
                return
            self._backward = True
        now_ns = self.clock_ns()
        self.release()
        if what == "step" and self._several:
            self._held_ns = now_ns
        else:
            sink.mark(what, now_ns)
        if self._marks >= self.steps + SPARE_STEPS:
            self.stop()

    def _another(self, ends: bool) -> None:
        """An optimizer has stepped without a backward pass of its own; ``ends``: behind one that ended the step."""
        if ends:
            self._several = True
            if self._held_ns is not None:
                self._held_ns = self.clock_ns()

    def release(self) -> None:
        """Tell the end of a step that was held back."""
        held_ns, self._held_ns = self._held_ns, None
        if held_ns is not None and self.sink is not None:
            self.sink.mark("step", held_ns)

    def stamper(self, parameter: Parameter) -> Callable[[Any], None]:
        """A hook on a gradient of ``parameter``: it is there. As short as can be, for it runs once for each."""
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
        """The record is over: hooks go."""
        with suppress(Exception):
            self.release()
        self.over = True
        removes, self._on_stop = self._on_stop, []
        for remove in removes:
            with suppress(Exception):
                remove()

    def quietly(self, what: Callable[..., Any], *arguments: Any) -> Any:
        """``what(*arguments)``, or None: a fault is told once and ends the record, never the training."""
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
