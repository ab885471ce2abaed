"""Watches a command's ranks from outside: who ended, when and how, who failed first, and who makes no progress.

A killed process writes nothing, and a rank whose neighbour died reports only "connection closed". The kernel states
when each process ended (pidfd, Linux) and, until its parent has collected it, with which exit code
(``/proc/PID/stat``). On other systems, and for ranks on other hosts, only what processes wrote themselves is known
(:mod:`real_backend.profile.lives`).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from coordsim.record.ranks.reader import SUFFIX
from real_backend.profile.launch import RECORDED
from real_backend.profile.lives import LIVES, here
from real_backend.profile.presence import Seen, Stage, seen
from real_backend.stream import append_end

LONG_NS = 5_000_000_000
"""A rank that has been in one place for longer than this is reported with the time."""
STALL_S = 60.0
"""A stall is reported after this time without progress of any rank, or after ten times the longest pause so far."""
_VICTIM = re.compile(
    r"connection (closed|reset|refused)|closed by peer|broken pipe|socket closed|remote process|timed? ?out|nccl"
    r"|rank \d+ (died|is gone|was lost|left)|lost rank|peer",
    re.IGNORECASE,
)
"""Matches the error of a rank whose neighbour has gone."""
_PIDFD_INFO = struct.Struct("=Q52xi")
"""``struct pidfd_info`` of Linux 6.15 (include/uapi/linux/pidfd.h): the mask asked for and answered, and the status."""
_PIDFD_INFO_EXIT = 1 << 3
_PIDFD_GET_INFO = 0xC040FF0B
"""``_IOWR(0xFF, 11, struct pidfd_info)``."""


class Ending(NamedTuple):
    """How one rank ended, or the command itself (``rank`` is None)."""

    rank: int | None
    pid: int
    unix_ns: int
    how: str
    """One of :data:`coordsim.record.ranks.format.HOWS`."""
    code: int | None = None
    signal: int | None = None
    text: str = ""
    where: str = ""
    """The step and the stage in which it ended."""

    @property
    def failed(self) -> bool:
        return self.how in ("exception", "signal", "unknown") or bool(self.code)

    @property
    def words(self) -> str:
        """What happened to the rank, as the predicate of a sentence."""
        if self.how == "signal":
            verb = "ended" if self.signal == signal.SIGTERM else "killed"
            return f"was {verb} by {signal_name(self.signal)}"
        if self.how == "unknown":
            return "ended without saying how (as a killed process does)"
        if self.how == "exception":
            return f"raised {self.text}" if self.text else "raised an exception"
        if self.how == "os._exit":
            return f"called os._exit({self.code})"
        if self.how == "sys.exit" and self.text != _FROM_OUTSIDE:
            return f"called sys.exit({self.text or self.code})"
        return f"ended with exit code {self.code}"


_FROM_OUTSIDE = "\0"


def signal_name(number: int | None) -> str:
    with suppress(ValueError, TypeError):
        return signal.Signals(number or 0).name
    return f"signal {number}"


def first_failure(endings: Sequence[Ending]) -> Ending | None:
    """Return the failure that came first, rather than one of those that it caused; None if none failed.

    A rank that lost its neighbour, or that a launcher ended by SIGTERM, counts as the first only when no other failed.
    """
    failed = sorted((each for each in endings if each.failed), key=lambda ending: ending.unix_ns)
    causes = [each for each in failed if not _is_victim(each)]
    return next(iter(causes or failed), None)


def _is_victim(ending: Ending) -> bool:
    return ending.signal == signal.SIGTERM or (ending.how == "exception" and bool(_VICTIM.search(ending.text)))


@dataclass
class _Life:
    rank: int
    ranks: int | None
    pid: int
    parent: int
    how: str
    """"given", "initialized" or "alone"."""
    local: bool = True
    """Whether the process runs on this host and in this namespace; only then its id can be used here."""
    said: dict[str, Any] | None = None
    """What the process itself wrote about its end."""
    fd: int | None = None
    died_ns: int | None = None
    status: int | None = None
    """Status as of ``waitpid``; None if the parent had collected it before."""


class Watch:
    """The processes of one command."""

    def __init__(self, folder: Path, command: int, now_ns: Callable[[], int] = time.time_ns) -> None:
        """``command`` is the id of the command's own process."""
        self.folder, self._now_ns = folder, now_ns
        self._here = here()
        self._read = 0
        self._sizes: list[tuple[str, int]] = []
        """How each rank began, and the number of ranks of its job; in order."""
        self._lives: dict[tuple[str, int], _Life] = {}
        """Processes by place (host and namespace) and process id."""
        self.hooked: set[int] = set()
        """Ids of Python processes that have hooks."""
        self._poll = select.poll() if hasattr(select, "poll") else None
        self._by_fd: dict[int, _Life] = {}
        self._command_fd = self._open(command)
        self._moved: tuple[list[Seen | None], float] = ([], time.monotonic())
        self._longest_pause_s = 0.0
        self._stalled = False

    def _open(self, pid: int) -> int | None:
        if self._poll is None or not hasattr(os, "pidfd_open"):
            return None
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return None
        self._poll.register(fd, select.POLLIN)
        return fd

    def turn(self, wait_s: float) -> None:
        """Wait until something happens, for ``wait_s`` at most, and take note of it."""
        self._take_lives()
        if self._poll is None:
            time.sleep(wait_s)
            return
        for fd, _ in self._poll.poll(wait_s * 1000):
            self._poll.unregister(fd)
            life = self._by_fd.pop(fd, None)
            if life is not None:
                life.died_ns, life.status = self._now_ns(), exit_status(life.pid, fd)
            os.close(fd)
            if fd == self._command_fd:
                self._command_fd = None

    def _take_lives(self) -> None:
        try:
            with (self.folder / LIVES).open("rb") as file:
                file.seek(self._read)
                data = file.read()
        except OSError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            with suppress(ValueError, KeyError, TypeError):
                self._take(json.loads(line))

    def _take(self, said: dict[str, Any]) -> None:
        pid, place = said["pid"], said.get("place", self._here)
        local = place == self._here
        if local:
            self.hooked.add(pid)
        if said["event"] == "begins":
            helper = self._lives.get((place, said["parent"]))
            if said["how"] == "given" and helper is not None and helper.rank == said["rank"]:
                return  # A Python process that a rank has started inherits the rank's variables but is no rank.
            old = self._lives.get((place, pid))
            life = _Life(said["rank"], said["ranks"], pid, said["parent"], said["how"], local)
            if local:
                life.fd = old.fd if old is not None else self._open(pid)
            if old is not None and old.died_ns is not None:
                life.died_ns, life.status = old.died_ns, old.status  # it began and died between two looks
            elif local and life.fd is None and old is None and hasattr(os, "pidfd_open"):
                life.died_ns = self._now_ns()
            elif life.fd is not None:
                self._by_fd[life.fd] = life
            self._lives[place, pid] = life
            if life.how != "given":
                self._sizes.append((life.how, life.ranks or 0))
        elif said["event"] == "ends" and (place, pid) in self._lives:
            self._lives[place, pid].said = said

    # What is known.

    @property
    def ranks(self) -> int:
        """Number of ranks of the job that began last; 0 if no process was a rank."""
        return self._sizes[-1][1] if self._sizes else 0

    @property
    def sizes(self) -> list[int]:
        """Sizes of process groups in the order of their beginnings; equal neighbours are listed once."""
        sizes: list[int] = []
        for how, ranks in self._sizes:
            if how == "initialized" and (not sizes or sizes[-1] != ranks):
                sizes.append(ranks)
        return sizes

    @property
    def recorded(self) -> bool:
        """Whether every rank has recorded its steps."""
        try:
            done = set((self.folder / RECORDED).read_text().split())
        except OSError:
            return False
        # A rank says how many there are before it has recorded, which may both have happened since the last turn.
        self._take_lives()
        return len(done) >= max(self.ranks, 1)

    def running(self) -> list[tuple[int, int]]:
        """Return (rank, process id) of the ranks that still run."""
        return sorted({(life.rank, life.pid) for life in self._lives.values() if _runs(life)})

    def endings(self) -> list[Ending]:
        """Return how each rank's last process ended, by rank, of those that have ended."""
        endings = [_ending(life, seen(self.folder, life.rank)) for life in self._last()]
        return [each for each in endings if each is not None]

    def _last(self) -> list[_Life]:
        """Return each rank's last process, by rank."""
        last: dict[int, _Life] = {}
        for life in self._lives.values():
            if life.rank not in last or life.how != "given" or last[life.rank].how == "given":
                last[life.rank] = life
        return [life for _, life in sorted(last.items())]

    def places(self) -> dict[int, Seen]:
        """Return where each rank of this host is, or was last; files from other hosts arrive late over a network."""
        ranks = sorted({life.rank for life in self._lives.values() if life.local})
        places = {rank: seen(self.folder, rank) for rank in ranks}
        return {rank: place for rank, place in places.items() if place is not None}

    def stalled(self, now_s: float) -> str | None:
        """Return where ranks are, once, if none of them has made progress for long.

        ``now_s`` is a time of the monotonic clock.
        """
        places = self.places()
        before, since_s = self._moved
        if not places or any(each.stage is Stage.OVER for each in places.values()):
            return None
        if list(places.values()) != before:
            if before:
                self._longest_pause_s = max(self._longest_pause_s, now_s - since_s)
            self._moved, self._stalled = (list(places.values()), now_s), False
            return None
        paused_s = now_s - since_s
        if self._stalled or paused_s < max(STALL_S, 10 * self._longest_pause_s):
            return None
        self._stalled = True
        return f"no rank has moved on for {paused_s:.0f} s: {at_places(places)}"

    def close_records(self) -> None:
        """Append to records how their ranks ended, where the ranks could not write it."""
        for life in self._last():
            ending = _ending(life, None)
            if ending is not None and (life.said is None or ending.how == "signal"):
                text = "" if ending.text == _FROM_OUTSIDE else ending.text
                path = self.folder / f"rank-{life.rank:05d}{SUFFIX}"
                append_end(path, ending.how, code=ending.code, signal=ending.signal, text=text or None)


def at_places(places: dict[int, Seen], now_ns: int | None = None) -> str:
    """Describe where ranks are, such as "ranks 0, 2 in step 7, backward (for 61 s); rank 1 in step 7, input".

    ``now_ns`` is a time of the ranks' clock.
    """
    by_words: dict[str, list[int]] = {}
    for rank, place in places.items():
        words = place.words
        if now_ns is not None and now_ns - place.since_ns > LONG_NS:
            words += f" (for {(now_ns - place.since_ns) / 1e9:.0f} s)"
        by_words.setdefault(words, []).append(rank)
    return "; ".join(f"{ranks_words(ranks)} in {words}" for words, ranks in by_words.items())


def ranks_words(ranks: Iterable[int]) -> str:
    """Name ranks, such as "rank 3" or "ranks 0, 1"; of many only the first ones."""
    ordered = sorted(ranks)
    shown = ", ".join(map(str, ordered[:8])) + (f" and {len(ordered) - 8} more" if len(ordered) > 8 else "")
    return f"rank {shown}" if len(ordered) == 1 else f"ranks {shown}"


def _runs(life: _Life) -> bool:
    if life.fd is not None:
        return life.died_ns is None
    return life.local and life.said is None and life.died_ns is None and Path(f"/proc/{life.pid}").exists()


def _ending(life: _Life, place: Seen | None) -> Ending | None:
    said = life.said or {}
    where = "" if place is None else place.words
    at_ns = min([at for at in (said.get("unix_ns"), life.died_ns) if at is not None], default=None)
    if at_ns is None:
        return None
    how, code, number, text = said.get("how"), said.get("code"), said.get("signal"), str(said.get("text", ""))
    if life.status is not None:
        if os.WIFSIGNALED(life.status):
            how, code, number, text = "signal", None, os.WTERMSIG(life.status), ""
        elif os.WEXITSTATUS(life.status) == 0:
            how, code, number, text = "exit", 0, None, ""
        elif how is None or not code:
            how, code, number, text = "sys.exit", os.WEXITSTATUS(life.status), None, _FROM_OUTSIDE
    if how is None:
        how = "unknown"  # A rank that ends by itself writes its end: this one was killed, or runs another program.
    return Ending(life.rank, life.pid, at_ns, how, code, number, text, where)


def exit_status(pid: int, pidfd: int) -> int | None:
    """Return the wait status of a process that has ended; None if it cannot be had.

    The process table has it until the parent has collected it, the descriptor from then on (Linux 6.15 and later).
    """
    status = _status_of_zombie(pid)
    return _status_of_descriptor(pidfd) if status is None else status


def _status_of_zombie(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[-1]) if fields[0] in ("Z", "X") else None
    except (OSError, ValueError, IndexError):
        return None


def _status_of_descriptor(pidfd: int) -> int | None:
    info = bytearray(_PIDFD_INFO.pack(_PIDFD_INFO_EXIT, 0))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError:
        return None
    answered, status = _PIDFD_INFO.unpack(info)
    return int(status) if answered & _PIDFD_INFO_EXIT else None
