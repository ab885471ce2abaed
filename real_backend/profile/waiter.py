"""A thread that waits for collectives on the CPU and reports the end of each.

No callback of this package runs on gloo's own threads: a callback that still has to run, or to be destroyed, while the
interpreter shuts down would abort the process. This thread is joined before that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from real_backend.leaving import at_exit

LAST_WAIT_S = 5.0
"""Longest wait at the end of the process, for a collective that other ranks never joined."""
_Item = tuple[Callable[[], Any], Callable[[BaseException | None], None]]


class Waiter:
    """Waits for collectives in their order; the first one starts the thread."""

    def __init__(self) -> None:
        self._items: SimpleQueue[_Item | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def after(self, wait: Callable[[], Any], call: Callable[[BaseException | None], None]) -> None:
        """Call ``call(error)`` once ``wait()`` has returned (``error`` is None) or raised."""
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
