"""Ranks as real processes: a function runs on each, and what it returns or raises comes back.

Processes are forked from a server that has torch loaded already, so that a job of four starts in a tenth of a second.
The test's own process hosts the store, as torchrun's agent does, so that killing rank 0 kills no store.
"""

from __future__ import annotations

import atexit
import faulthandler
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any

import torch.distributed as dist

PRELOADED = [
    "torch", "torch.distributed", "numpy", "pytest", "real_backend.ops", "real_backend.data.torch_data",
    "real_backend.optimizer", "torch._dynamo", "tests.real_backend.processes",
]  # fmt: skip
DEADLINE_S = 150.0
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOADED)


@dataclass
class Outcome:
    """What became of one rank."""

    result: Any = None
    error: str = ""
    """Traceback of what it raised; "" when it returned."""
    exit_code: int | None = None
    """Of a process that ended without saying anything (killed: minus the signal)."""
    seconds: float = 0.0


class Job:
    """``function(*arguments)`` on every rank, started; :meth:`outcomes` waits for them."""

    def __init__(
        self, ranks: int, function: Callable[..., Any], *arguments: Any, env: Mapping[str, str] | None = None
    ) -> None:
        self.store = dist.TCPStore("127.0.0.1", 0, ranks, is_master=True, wait_for_workers=False)
        self.ends: list[Connection] = []
        self.processes = []
        self.began = time.monotonic()
        for rank in range(ranks):
            facts = {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.store.port),
                "TORCHELASTIC_USE_AGENT_STORE": "True", **(env or {}),
            }  # fmt: skip
            mine, theirs = _context.Pipe(duplex=False)
            process = _context.Process(target=_child, args=(theirs, facts, function, arguments), daemon=True)
            process.start()
            theirs.close()
            self.ends.append(mine)
            self.processes.append(process)

    def wait_for(self, *events: str) -> None:
        """Until ranks have told (:func:`tell`) all of these. AssertionError when they have not in time."""
        try:
            self.store.wait([_EVENT + each for each in events], timedelta(seconds=DEADLINE_S))
        except RuntimeError:
            for process in self.processes:
                process.kill()
            raise AssertionError(f"no rank told {events} within {DEADLINE_S:g} s") from None

    def kill(self, rank: int, how: int = signal.SIGKILL) -> None:
        pid = self.processes[rank].pid
        assert pid is not None
        os.kill(pid, how)

    def outcomes(self, timeout_s: float = DEADLINE_S, stopped: int | None = None) -> list[Outcome]:
        """By rank. Whoever has not ended within ``timeout_s`` is killed, and that is an AssertionError.
        ``stopped``: the rank that cannot end, and is killed once all others have ended."""
        found = [Outcome() for _ in self.processes]
        open_ends = dict(zip(self.ends, range(len(self.ends)), strict=True))
        deadline = self.began + timeout_s
        while open_ends:
            if list(open_ends.values()) == [stopped]:
                self.processes[stopped].kill()
            ready = wait(list(open_ends), max(deadline - time.monotonic(), 0.0))
            if not ready:
                hung = sorted(open_ends.values())
                for process in self.processes:
                    process.kill()
                raise AssertionError(f"ranks {hung} had not ended after {timeout_s:g} s")
            for end in ready:
                assert isinstance(end, Connection)
                rank = open_ends.pop(end)
                try:
                    found[rank].result, found[rank].error = end.recv()
                except EOFError:
                    self.processes[rank].join(5)
                    found[rank].exit_code = self.processes[rank].exitcode
                found[rank].seconds = time.monotonic() - self.began
        for process in self.processes:
            process.join(10)
            process.kill()
        return found


def run(
    ranks: int, function: Callable[..., Any], *arguments: Any, env: Mapping[str, str] | None = None,
    timeout_s: float = DEADLINE_S,
) -> list[Any]:  # fmt: skip
    """What ``function(*arguments)`` returns on each rank; AssertionError with the first traceback if one raises."""
    outcomes = Job(ranks, function, *arguments, env=env).outcomes(timeout_s)
    errors = [f"rank {rank}:\n{outcome.error}" for rank, outcome in enumerate(outcomes) if outcome.error]
    assert not errors, "\n".join(errors)
    for rank, outcome in enumerate(outcomes):
        assert outcome.exit_code is None, f"rank {rank} ended with {outcome.exit_code}"
    return [outcome.result for outcome in outcomes]


_EVENT = "tests/"


def _store() -> dist.TCPStore:
    return dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)


def tell(event: str) -> None:
    """In a rank: this has happened."""
    _store().set(_EVENT + event, "")


def wait_until(event: str) -> None:
    """In a rank: wait until some rank has told it."""
    _store().wait([_EVENT + event], timedelta(seconds=DEADLINE_S))


def is_told(event: str) -> bool:
    """In a rank: whether some rank has told it."""
    return bool(_store().check([_EVENT + event]))


def _child(end: Connection, facts: Mapping[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    faulthandler.dump_traceback_later(DEADLINE_S - 5, file=sys.__stderr__)
    os.environ.update(facts)
    import torch

    torch.set_num_threads(1)
    try:
        outcome = (function(*arguments), "")
    except BaseException:
        outcome = (None, traceback.format_exc())
    end.send(outcome)
    end.close()
    atexit._run_exitfuncs()  # as a process that was not forked would


__all__ = ["Job", "Outcome", "is_told", "run", "tell", "wait_until"]
