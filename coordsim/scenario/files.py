"""Files that a user named: which kind, their text, and what to say about one that cannot be read."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from decimal import Decimal
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from coordsim.errors import Problem, nearest

LARGEST_BYTES = 64 << 20
"""Of one file: some million tensors. Files without an end (``/dev/zero``) are refused by it."""
DEEPEST = 24
"""Tables and lists inside one another. No key lies deeper than five, and what follows may recurse."""


class TooDeep(ValueError):
    """Tables and lists are nested beyond :data:`DEEPEST`."""

    def __init__(self) -> None:
        super().__init__(f"tables and lists are nested more than {DEEPEST} deep")


def is_list(base: object) -> bool:
    """Whether a workload's base is a CSV file of tensors."""
    return isinstance(base, str) and base.endswith(".csv")


def read_text(path: Traversable) -> str:
    """The file's text, without a byte order mark. Raises OSError and ValueError, for :func:`unreadable`."""
    with path.open("rb") as file:
        content = file.read(LARGEST_BYTES + 1)
    if len(content) > LARGEST_BYTES:
        raise ValueError(f"is larger than {LARGEST_BYTES >> 20} MiB")
    return content.decode("utf-8-sig")


def parse_toml(text: str) -> dict[str, Any]:
    """TOML as plain data, decimal numbers exact. Raises ValueError where it is none; TooDeep."""
    try:
        tree = tomllib.loads(text, parse_float=Decimal)
    except RecursionError:
        raise TooDeep from None
    check_depth(tree)
    return tree


def check_depth(tree: object) -> None:
    """Raise TooDeep where tables and lists are nested beyond :data:`DEEPEST`."""
    layer = [tree]
    for _ in range(DEEPEST + 1):
        layer = [inner for outer in layer for inner in _inside(outer)]
        if not layer:
            return
    raise TooDeep


def _inside(value: object) -> Iterable[object]:
    """The tables and lists right inside a value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (one for one in inner if isinstance(one, dict | list))


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
    try:
        if not isinstance(path, Path) or path.exists():
            return ""
        names = tuple(sorted(other.name for other in path.parent.iterdir() if other.suffix == path.suffix))
    except (OSError, ValueError):  # the name is too long, or none
        return ""
    guess = nearest(path.name, names)
    return f" (did you mean {guess!r}?)" if guess else ""
