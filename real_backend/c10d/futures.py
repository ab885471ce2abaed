"""Futures of operations, completed by threads of their own.

A callback that is chained to one future may wait for another: PowerSGD's hook starts an allreduce in a callback and
waits for it there. On the engine's background thread this would block for ever.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch

from real_backend.engine.handles import Handle


class Completer:
    """Runs calls in order on a pool of threads; one more thread is started when all of them are busy."""

    def __init__(self) -> None:
        self._work: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._idle = 0

    def run(self, call: Callable[[], None]) -> None:
        with self._changed:
            self._work.append(call)
            if self._idle >= len(self._work):
                self._changed.notify()
                return
        threading.Thread(target=self._serve, name="coordsim-futures", daemon=True).start()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                while not self._work:
                    self._changed.wait()
                self._idle -= 1
                call = self._work.popleft()
            call()


_completer = Completer()


def future_of(handle: Handle, outcome: Callable[[], Any], devices: Sequence[torch.device] = ()) -> Any:
    """Return a future that calls ``outcome`` when ``handle`` has ended, and holds what it returns or raises.

    ``devices`` are the GPUs of the result; the current streams of a thread that waits for the future wait for them.
    """
    # An exception given to a Python future is a value to C++, where DDP waits; one raised in a callback is an error.
    begin: Any = torch.futures.Future(devices=list(devices))
    future = begin.then(lambda _: outcome())
    handle.on_done(lambda _: _completer.run(lambda: begin.set_result(None)))
    return future


__all__ = ["Completer", "future_of"]
