"""Named clusters and workloads that ship with coordsim, as TOML files beside this module.

Every number in an entry has its source in the entry's ``[sources]`` table, by dotted key. Works from an
installed wheel (``importlib.resources``) and offline.
"""

from __future__ import annotations

import csv
import tomllib
from copy import deepcopy
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from math import prod
from typing import Any, Literal

from coordsim.errors import InputError

Kind = Literal["cluster", "workload"]
KINDS: tuple[Kind, ...] = ("cluster", "workload")


@dataclass(frozen=True, slots=True)
class Entry:
    """One catalog entry, for listing."""

    kind: Kind
    name: str
    description: str


def folder(kind: Kind) -> Traversable:
    """Where the entries of ``kind`` lie; tensor lists are named relative to it."""
    return files(__package__).joinpath(f"{kind}s")


def names(kind: Kind) -> tuple[str, ...]:
    """Names of all entries of ``kind``, sorted."""
    place = folder(kind)
    if not place.is_dir():
        return ()
    suffix = ".toml"
    found = (item.name for item in place.iterdir())
    return tuple(sorted(name.removesuffix(suffix) for name in found if name.endswith(suffix)))


def list_entries() -> tuple[Entry, ...]:
    """All entries, clusters first, each kind sorted by name."""
    return tuple(
        Entry(kind, name, str(read(kind, name).get("description", "")))
        for kind in KINDS
        for name in names(kind)
    )


def show(name: str) -> str:
    """The text of the entry ``name``, cluster or workload. Raises InputError for an unknown name."""
    for kind in KINDS:
        if name in names(kind):
            return _text(kind, name)
    known = tuple(known for kind in KINDS for known in names(kind))
    raise InputError.one("catalog", "", name, f"has no entry named {name!r}", known)


def read(kind: Kind, name: str) -> dict[str, Any]:
    """The entry's TOML as plain data, decimal numbers exact. Raises KeyError for an unknown name."""
    if name not in names(kind):
        raise KeyError(name)
    return deepcopy(_parsed(kind, name))


@cache
def _parsed(kind: Kind, name: str) -> dict[str, Any]:
    return tomllib.loads(_text(kind, name), parse_float=Decimal)


def gradient_sizes(workload: str) -> tuple[int, ...]:
    """Elements of each gradient, first ready first; of an entry with a list of tensors. Raises KeyError without one."""
    try:
        text = folder("workload").joinpath(f"{workload}.tensors.csv").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise KeyError(workload) from None
    rows = sorted(csv.DictReader(text.splitlines()), key=lambda row: int(row["ready"]))
    return tuple(prod(int(extent) for extent in row["shape"].split("x")) for row in rows)


def _text(kind: Kind, name: str) -> str:
    return folder(kind).joinpath(f"{name}.toml").read_text(encoding="utf-8")
