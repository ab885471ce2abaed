"""A progress bar for work that takes longer than two seconds, on a terminal only."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING

from coordsim.cli.console import colour_wanted

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE_S = 2.0
"""Work that takes less time than this has no bar."""


class Bar:
    """``with Bar("simulating") as bar: ... bar.update(3, 20)``; silent when stderr is no terminal."""

    def __init__(self, title: str) -> None:
        self._title, self._done, self._total = title, 0, 0
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._shown: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> Bar:
        if sys.stderr.isatty():
            self._timer = threading.Timer(PATIENCE_S, self._show)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._shown is not None:
                self._shown[0].stop()

    def update(self, done: int, total: int) -> None:
        """Note that ``done`` of ``total`` are complete."""
        with self._lock:
            self._done, self._total = done, total
            self._refresh()

    def begin(self, title: str) -> None:
        """Begin the next piece of work, whose progress is not known yet."""
        with self._lock:
            self._title, self._done, self._total = title, 0, 0
            self._refresh()

    def _refresh(self) -> None:
        if self._shown is not None:
            progress, task = self._shown
            total = self._total or None
            progress.update(task, description=self._title, completed=self._done, total=total)

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        with self._lock:
            if self._timer is None:
                return  # The work ended before the bar was due.
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            screen = Console(stderr=True, no_color=not colour_wanted())
            progress = Progress(*columns, console=screen, transient=True)
            self._shown = progress, progress.add_task(self._title, total=None)
            self._refresh()
            progress.start()
