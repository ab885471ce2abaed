"""Parts of an event, whatever type they have: numbers that may be text, ids, groups and their ranks."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from coordsim.formats.kineto.raw import UNGROUPED, Group

LONGEST_US = 9e15
MOST_RANKS = 1 << 20
_LONGEST_LIST = 1 << 17
_NO_ARGS: dict[str, Any] = {}
_LIST = re.compile(r"\[\s*[0-9]+(?:\s*,\s*[0-9]+)*\s*\]")
_DECIMAL = re.compile(r"\s*(-?)([0-9]{1,16})(?:\.([0-9]{0,20}))?\s*")


def decimal_ns(text: str) -> int | None:
    """Return a decimal number of us as ns, exact to the ns at any size; None for other text."""
    match = _DECIMAL.fullmatch(text)
    if not match or int(match[2]) >= LONGEST_US:
        return None
    ns = int(match[2]) * 1000 + int(((match[3] or "") + "000")[:3])
    return -ns if match[1] else ns


def args_of(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event's arguments; none if they are no object."""
    args = event.get("args")
    return args if isinstance(args, dict) else _NO_ARGS


def whole_of(value: Any) -> int | None:
    """Return a whole number of 63 bits, given as a number or as text; None for anything else."""
    if isinstance(value, str) and len(value) < 19 and value.isascii() and value.isdecimal():
        value = int(value)
    return value if type(value) is int and 0 <= value < 1 << 63 else None


def external_of(args: dict[str, Any]) -> int | None:
    """Return the id of the operator that an event belongs to."""
    return whole_of(args.get("External id", args.get("external id")))


def group_of(args: dict[str, Any]) -> Group:
    """Return what a call's or a kernel's arguments state of its process group."""
    if "Process Group Name" not in args and "Group size" not in args and "Seq" not in args:
        return UNGROUPED
    name = args.get("Process Group Name")
    size = whole_of(args.get("Group size"))
    return Group(
        name[:80] if isinstance(name, str) else "", size if size and size <= MOST_RANKS else None,
        ranks_of(args.get("Process Group Ranks")), whole_of(args.get("Seq")),
    )  # fmt: skip


@lru_cache(maxsize=64)
def _ranks_of_text(text: str) -> tuple[int, ...] | None:
    if not _LIST.fullmatch(text):
        return None
    return ranks_of([int(number) for number in text.strip("[] ").split(",") if len(number) < 12])


def ranks_of(value: Any) -> tuple[int, ...] | None:
    """Return a group's ranks, from a list or its text; None for a shortened one (``[0, 1, ...]``)."""
    if isinstance(value, str):
        return _ranks_of_text(value) if len(value) <= _LONGEST_LIST else None
    if not isinstance(value, list) or not value:
        return None
    if not all(type(rank) is int and 0 <= rank <= MOST_RANKS for rank in value):
        return None
    return tuple(value)
