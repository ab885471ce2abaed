"""Begin and end of the command's processes, one line of JSON each in one file, written by the processes themselves.

A killed process writes no end; ``coordsim profile`` watches from outside (:mod:`real_backend.profile.watch`).
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from real_backend.leaving import at_exit

LIVES = "processes.jsonl"
_LONGEST_TEXT = 300

def here() -> str:
    """Return the host and the process namespace, within which a process id is unique."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{platform.node()} {namespace}"


plain_exit: Callable[[int], Any] = os._exit
"""``os._exit`` without the hook."""


def first_line(error: BaseException) -> str:
    """Return an exception's type and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[:1]])[:_LONGEST_TEXT]


def is_child_of_multiprocessing() -> bool:
    """Return whether :mod:`multiprocessing` started this interpreter, as a DataLoader's worker or by ``spawn``."""
    return "--multiprocessing-fork" in getattr(sys, "orig_argv", ())


class Lives:
    """Writes the begin and the end of this process."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LIVES
        self.rank: int | None = None
        self.ranks: int | None = None
        self._pid = os.getpid()
        self._pending: dict[str, Any] | None = None
        """Arguments of ``sys.exit``, which ends the process unless the script catches it."""
        self._ended = False
        self._watching: int | None = None
        """Id of the process whose end is watched; it differs after a fork."""
        self.on_end: Callable[[dict[str, Any]], None] = lambda _: None

    def write(self, **what: Any) -> None:
        """Append one line. Errors of the file system are ignored."""
        line = json.dumps({"pid": os.getpid(), "place": here(), "unix_ns": time.time_ns(), **what}) + "\n"
        with suppress(OSError):
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.write(file, line.encode())
            finally:
                os.close(file)

    def hooked(self) -> None:
        """Note that this process has hooks. If a launcher gave it a rank, its end is watched from now on."""
        rank = os.environ.get("RANK", "")
        if rank.isdecimal() and not is_child_of_multiprocessing():
            ranks = os.environ.get("WORLD_SIZE", "")
            self.begins(int(rank), int(ranks) if ranks.isdecimal() else None, "given")
        else:
            self.write(event="hooked", parent=os.getppid())

    def begins(self, rank: int, ranks: int | None, how: str) -> None:
        """Note that this process is a rank; ``how`` is "given" by a launcher, "initialized" or "alone"."""
        self.rank, self.ranks, self._pid = rank, ranks, os.getpid()
        self.write(event="begins", rank=rank, ranks=ranks, how=how, parent=os.getppid())
        if self._watching is None:
            self._watch()
        if self._watching != self._pid:
            self._watching, self._ended, self._pending = self._pid, False, None
            at_exit(self._left)

    def ends(self, how: str, **more: Any) -> None:
        """Note the end once, and only in the process that began."""
        if self._ended or os.getpid() != self._pid:
            return
        self._ended = True
        said = {"how": how, **{key: value for key, value in more.items() if value not in (None, "")}}
        self.write(event="ends", rank=self.rank, **said)
        with suppress(Exception):
            self.on_end(said)

    def _watch(self) -> None:
        plain_hook, plain_sys_exit, plain_os_exit = sys.excepthook, sys.exit, os._exit

        def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
            if not issubclass(kind, KeyboardInterrupt):
                self.ends("exception", code=1, text=first_line(error))
            else:
                self.ends("signal", signal=2)
            return plain_hook(kind, error, trace)

        def leave(status: Any = None) -> Any:
            handled = sys.exc_info()[1]
            code = status if isinstance(status, int) else int(status is not None)
            text = "" if status is None or isinstance(status, int) else str(status)[:_LONGEST_TEXT]
            if code and handled is not None and not isinstance(handled, SystemExit):
                self._pending = {"how": "exception", "code": code, "text": first_line(handled)}
            else:
                self._pending = {"how": "sys.exit" if code else "exit", "code": code, "text": text}
            return plain_sys_exit(status)

        def leave_at_once(status: int) -> Any:
            if self._pending is not None and self._pending["code"] == status:
                self.ends(**self._pending)
            else:
                self.ends("os._exit" if status else "exit", code=status)
            return plain_os_exit(status)

        sys.excepthook, sys.exit, os._exit = uncaught, leave, leave_at_once

    def _left(self) -> None:
        error = getattr(sys, "last_value", None)
        if error is not None:
            self.ends("exception", code=1, text=first_line(error))
        elif self._pending is not None:
            self.ends(**self._pending)
        else:
            self.ends("exit", code=0)
