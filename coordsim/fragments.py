"""Pieces of TOML and CSV that any name can stand in: what is written here, tomllib and our own loaders read back.

Names come from files of others, hosts and folders: they may hold quotes, ends of lines, control characters, emoji, and
bytes that are no UTF-8 (as lone surrogates).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import tomlkit

_UNPRINTED = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_LONGEST_CELL = 100_000
"""Characters of a cell; :mod:`csv` refuses to read 131,072."""


def toml_value(value: Any) -> str:
    """``value`` as TOML writes it: a text, a number, a truth value, a list, or a mapping (on one line)."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        inside = ", ".join(f"{toml_key(str(key))} = {toml_value(held)}" for key, held in value.items())
        return f"{{ {inside} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    return tomlkit.item(_encodable(value) if isinstance(value, str) else value).as_string()


def toml_key(name: str) -> str:
    """``name`` as the key of a table, in quotes where TOML wants them."""
    return tomlkit.key([_encodable(name)]).as_string() if name else '""'


def toml_comment(text: str) -> str:
    """``# text`` on one line."""
    return f"# {one_line(text)}".rstrip()


def one_line(text: str) -> str:
    """``text`` with a space for each run of ends of lines and control characters, which a comment must not hold."""
    return _UNPRINTED.sub(" ", _encodable(text))


def csv_names(names: Iterable[str]) -> list[str]:
    """Names of a tensor list as cells: on one line, not empty, of a length that can be read, and all different."""
    cells: list[str] = []
    seen: set[str] = set()
    for name in names:
        cell = plain = " ".join(one_line(name).split())[:_LONGEST_CELL] or "unnamed"
        count = 1
        while cell in seen:
            count += 1
            cell = f"{plain} ({count})"
        seen.add(cell)
        cells.append(cell)
    return cells


def _encodable(text: str) -> str:
    """``text`` with a replacement character for what UTF-8 cannot hold."""
    return _SURROGATE.sub("\ufffd", text)
