"""Files that a user named: which kind, and what to say about one that cannot be read."""

from __future__ import annotations

from importlib.resources.abc import Traversable
from pathlib import Path

from coordsim.errors import Problem, nearest


def is_list(base: object) -> bool:
    """Whether a workload's base is a CSV file of tensors."""
    return isinstance(base, str) and base.endswith(".csv")


def unreadable(path: Traversable, label: str, error: OSError | ValueError) -> Problem:
    """Why ``path``, which mistakes call ``label``, cannot be read; a file of a like name is offered."""
    if isinstance(error, UnicodeDecodeError):
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        message = f"cannot be read: is not UTF-8 text (byte 0x{byte:02x})"
        return Problem(label, f"line {line}", f"0x{byte:02x}", message)
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return Problem(label, "", label, f"cannot be read: {reason}{_instead(path)}")


def _instead(path: Traversable) -> str:
    if not isinstance(path, Path) or path.exists():
        return ""
    try:
        names = tuple(sorted(each.name for each in path.parent.iterdir() if each.suffix == path.suffix))
    except OSError:
        return ""
    guess = nearest(path.name, names)
    return f" (did you mean {guess!r}?)" if guess else ""
