"""A thread that waits for collectives on the CPU and tells when each is over.

No callback of ours is left to gloo's own threads: one that still has to run, or to be thrown away, while the
interpreter shuts down would abort the process. This thread is joined before that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from real_backend.leaving import at_exit

LAST_WAIT_S = 5.0
"""At the end, for a collective that nobody else came to."""
_Item = tuple[Callable[[], Any], Callable[[BaseException | None], None]]


class Waiter:
    """Waits in the order in which it is told, which is that of the collectives; the thread starts with the first."""

    def __init__(self) -> None:
        self._items: SimpleQueue[_Item | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def after(self, wait: Callable[[], Any], call: Callable[[BaseException | None], None]) -> None:
        """``call(error)`` once ``wait()`` has returned (None) or raised."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="coordsim-waiter", daemon=True)
            self._thread.start()
            at_exit(self._leave)
        self._items.put((wait, call))

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            wait, call = item
            error: BaseException | None = None
            try:
                wait()
            except Exception as failed:
                error = failed
            call(error)
            del item, wait, call, error

    def _leave(self) -> None:
        assert self._thread is not None
        self._items.put(None)
        self._thread.join(LAST_WAIT_S)
