"""Runs the command that ``coordsim profile`` records: watches its ranks, stops it, and survives a closed terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from coordsim.cli import console

if TYPE_CHECKING:
    from real_backend.profile.unhooked import Unhooked
    from real_backend.profile.watch import Ending, Watch

TURN_S = 0.1
LOOK_EVERY_S = 0.5
PATIENCE_S = 20.0
"""With ``--then-stop``: time for the command to end by itself once its ranks have ended."""
TERMINATION_S = 35.0
"""Time for the command to end after SIGTERM; torchrun gives its ranks 30 s."""


@dataclass
class Done:
    """How the command ended."""

    code: int
    """Exit code as a shell states it: 128 + n for signal n; 0 if it was stopped because everything was recorded."""
    endings: list[Ending] = field(default_factory=list)
    first: Ending | None = None
    """The failure that came first."""
    running: list[tuple[int, int]] = field(default_factory=list)
    """(rank, process id) of ranks that still run although the command has ended."""
    sizes: list[int] = field(default_factory=list)
    """Numbers of ranks of the process groups, one after the other."""
    places: str = ""
    """Where ranks were when the command was stopped from outside."""
    stopped_by: str = ""
    """The signal that stopped the command."""
    stopped_recorded: bool = False
    hangup: bool = False
    """Whether the terminal was closed."""
    unhooked: str | None = None
    """Why a Python process of the command had no hooks."""
    recorded: bool = False
    """Whether every rank recorded all the steps that were wanted."""

    def line(self, program: str) -> str | None:
        """Return in one line what went wrong first; None if nothing went wrong."""
        if self.stopped_recorded:
            return None
        if self.stopped_by:
            return f"the command was stopped by {self.stopped_by}" + (f": {self.places}" if self.places else "")
        if self.hangup and self.code and (self.first is None or self.first.signal == signal.SIGHUP):
            return "the terminal was closed (SIGHUP), which ended the training"
        if self.first is None:
            sizes = ", then ".join(map(str, self.sizes))
            return f"the number of ranks changed while the command ran: {sizes}" if len(self.sizes) > 1 else None
        first = self.first
        if first.rank is None:
            line = f"{program} {first.words}"
            if self.running:
                ranks = sorted({rank for rank, _ in self.running})
                pids = " ".join(str(pid) for _, pid in self.running)
                line += f"; {_ranks(ranks)} still running: stop them with kill {pids}"
            return line
        line = f"rank {first.rank} failed first: it {first.words}" + (f" in {first.where}" if first.where else "")
        others = [each for each in self.endings if each.failed and each.rank != first.rank]
        if others:
            line += f"; after it {', '.join(f'rank {each.rank} {each.words}' for each in others[:3])}"
            line += f" and {len(others) - 3} more" if len(others) > 3 else ""
        return line


def _ranks(ranks: Sequence[int]) -> str:
    from real_backend.profile.watch import ranks_words

    return f"{ranks_words(ranks)} {'is' if len(ranks) == 1 else 'are'}"


def run(
    command: list[str], folder: Path, steps: int, output_to_stderr: bool, then_stop: bool,
    when_recorded: Callable[[int], None],
) -> Done:  # fmt: skip
    """Run ``command`` until it ends. ``when_recorded(ranks)`` is called once all ranks have recorded ``steps``."""
    from real_backend.profile.launch import environment
    from real_backend.profile.unhooked import Unhooked
    from real_backend.profile.watch import Watch

    signals = Signals()
    with signals.handled():
        process = subprocess.Popen(
            command, env=environment(folder, steps, then_stop), stdout=sys.stderr if output_to_stderr else None
        )
        signals.process = process
        watch, unhooked = Watch(folder, process.pid), Unhooked(process.pid)
        stopped = _attend(process, watch, unhooked, then_stop, when_recorded)
        code = process.wait()
        ended_ns = time.time_ns()
        _await_ends(watch)
    return _finish(code, ended_ns, process.pid, watch, unhooked, signals, stopped)


def _attend(
    process: subprocess.Popen[bytes], watch: Watch, unhooked: Unhooked, then_stop: bool,
    when_recorded: Callable[[int], None],
) -> bool:  # fmt: skip
    """Watch the command until it ends; return whether it was stopped because everything was recorded."""
    recorded_s, looked_s, asked = None, 0.0, False
    while process.poll() is None:
        watch.turn(TURN_S)
        now_s = time.monotonic()
        if recorded_s is None and watch.recorded:
            recorded_s = now_s
            when_recorded(watch.ranks)
        if recorded_s is None and now_s - looked_s > LOOK_EVERY_S:
            looked_s = now_s
            if not watch.ranks:
                unhooked.look(watch.hooked)
            stall = watch.stalled(now_s)
            if stall is not None:
                console.note(f"{stall}; Ctrl-C ends the command and keeps what was recorded")
        if then_stop and recorded_s is not None:
            if not asked and now_s - recorded_s > PATIENCE_S:
                asked = True
                process.terminate()
            elif asked and now_s - recorded_s > PATIENCE_S + TERMINATION_S:
                process.kill()
    return then_stop and (recorded_s is not None or watch.recorded)


def _await_ends(watch: Watch) -> None:
    """Wait briefly for ranks that end with the command, and take note of their ends."""
    until_s = time.monotonic() + 2.0
    watch.turn(0)
    while watch.running() and time.monotonic() < until_s:
        watch.turn(TURN_S)
    watch.turn(0)


def _finish(
    code: int, ended_ns: int, pid: int, watch: Watch, unhooked: Unhooked, signals: Signals, stopped: bool
) -> Done:
    """Gather how the command and its ranks ended, and stop ranks that still run if the command was to be stopped."""
    from real_backend.profile.watch import Ending, at_places, first_failure

    watch.close_records()
    endings = watch.endings()
    everybody = list(endings)
    if code < 0 and not signals.sent:
        everybody.append(Ending(None, pid, ended_ns, "signal", signal=-code))
    running = watch.running()
    if stopped:
        for _, pid in running:
            with suppress(OSError):
                os.kill(pid, signal.SIGTERM)
    first = first_failure(everybody) if code else None
    places = watch.places()
    return Done(
        code=0 if stopped else (code if code >= 0 else 128 - code), endings=endings, first=first, running=running,
        sizes=watch.sizes, places=at_places(places, time.perf_counter_ns()) if places else "",
        stopped_by=signals.sent if code else "", stopped_recorded=stopped, hangup=signals.hangup,
        unhooked=unhooked.why(watch.hooked), recorded=watch.recorded,
    )  # fmt: skip


class Signals:
    """Signals that arrive while the command runs. None ends this process, which still has to store what was recorded.

    Ctrl-C and a closed terminal reach the whole process group, so the command has them already. TERM is passed on.
    """

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.sent = ""
        self.hangup = False

    def _interrupted(self, *_: object) -> None:
        self.sent = "Ctrl-C"

    def _terminated(self, *_: object) -> None:
        self.sent = "SIGTERM"
        if self.process is not None:
            self.process.terminate()

    def _hung_up(self, *_: object) -> None:
        self.hangup = True

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals inside the context, and restore the earlier handlers afterwards."""
        handlers = {signal.SIGINT: self._interrupted, signal.SIGTERM: self._terminated}
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup stays nohup
            handlers[signal.SIGHUP] = self._hung_up
        before = {each: signal.signal(each, handler) for each, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                if number is not signal.SIGHUP:
                    signal.signal(number, handler)
            if signal.SIGHUP in before:
                # What is gathered from here on must outlive a terminal that closes now.
                signal.signal(signal.SIGHUP, signal.SIG_IGN if self.hangup else before[signal.SIGHUP])


def detach_from_terminal() -> None:
    """Redirect output from a terminal that is gone, since writing to it would end this process.

    Output to files and pipes stays as it is.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            stream.write("")
            stream.flush()
            gone = stream.isatty() and not _writable(stream.fileno())
        except (OSError, ValueError):
            gone = True
        if gone:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def _writable(descriptor: int) -> bool:
    try:
        os.write(descriptor, b"\n")
    except OSError:
        return False
    return True
