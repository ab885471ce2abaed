"""A file that is whole or not there: written beside its final name, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_unfinished: set[Path] = set()


def discard_unfinished() -> None:
    """Remove what is being written: for a process that is about to end without unwinding."""
    for fresh in tuple(_unfinished):
        fresh.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write to the path that this gives; it becomes ``path`` at the end, unless an exception passes.

    An earlier file of that name is replaced. Raises OSError as opening ``path`` for writing does.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
    os.close(handle)
    fresh = Path(name)
    _unfinished.add(fresh)
    try:
        yield fresh
        fresh.chmod(0o644)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    finally:
        _unfinished.discard(fresh)
