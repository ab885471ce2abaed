"""The tables of docs/scenario.md, made from the declarations of the keys.

``python -m coordsim.scenario.reference docs/scenario.md`` writes them anew between their marks; a test says when that
is needed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from coordsim.scenario import defaults
from coordsim.scenario.declared import REQUIRED, Declared, declared_keys, docstrings
from coordsim.scenario.json_schema import SECTIONS
from coordsim.scenario.keys import Filled, Source
from coordsim.scenario.model import (
    CONTROL_PLANES,
    ControlNetwork,
    DataNetwork,
    HostCosts,
    KeyRange,
    Machine,
    Scenario,
    Spread,
)
from coordsim.scenario.recipes import TensorRow

TABLES: Mapping[str, type[object]] = {
    "scenario": Scenario, **SECTIONS, "tensors": TensorRow, "cluster.machine": Machine,
    "cluster.control": ControlNetwork, "cluster.host": HostCosts, "cluster.data": DataNetwork,
    "cluster.ranges": KeyRange, "noise.spread": Spread,
}  # fmt: skip
"""By the name in a table's mark, ``<!-- keys: NAME -->``."""
_MARKED = re.compile(r"(?<=<!-- keys: )([a-z_.]+)( -->\n).*?(?=<!-- end of keys -->)", re.DOTALL)
_KINDS = {int: "a whole number", str: "text", bool: "`true` or `false`"}
_UNIT_OF_DEFAULT = {"percent": "%", "permille": "", "ppm": "ppm"}


def key_table(name: str) -> str:
    """The Markdown table of the keys of the table ``name`` of :data:`TABLES`."""
    keys = declared_keys(TABLES[name])
    if name == "scenario":
        keys = tuple(key for key in keys if key.path not in SECTIONS)
    if name == "cluster.ranges":
        keys = tuple(key for key in keys if key.path != "key")
    rows = [" | ".join((f"| `{key.path}`", _value(key), _default(key, name), f"{_meaning(key)} |")) for key in keys]
    return "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows]) + "\n"


def with_tables(page: str) -> str:
    """The text of a page, with its marked tables made anew."""
    return _MARKED.sub(lambda marked: f"{marked[1]}{marked[2]}{key_table(marked[1])}", page)


def _value(key: Declared) -> str:
    """How the value is written, and its bounds."""
    if key.table is not None or key.named is not None:
        return "a table, below"
    value = key.written
    words = _in_code(value.form.words.partition(" (")[0]) if value.form is not None else ""
    if not words:
        words = ", ".join(f"`{name}`" for name in _choices(key)) or _kind_of(value.plain)
    return "; ".join([words, *_bounds(key)])


def _choices(key: Declared) -> tuple[str, ...]:
    """The names that the value is one of."""
    form, plain = key.written.form, key.written.plain
    if form is not None and form.shapes and "enum" in form.shapes[0]:
        return tuple(form.shapes[0]["enum"])
    return get_args(plain) if get_origin(plain) is Literal else ()


def _kind_of(plain: Any) -> str:
    if get_origin(plain) is dict:
        return "a table by name"
    return _KINDS.get(plain, "a file's name, or a list of tables")


def _bounds(key: Declared) -> Iterator[str]:
    """The tightest bounds, as people write them; of those that 64 bits set nothing is said."""
    if key.written.form is not None and "at least" in key.written.form.words:
        return
    lowest = [bound for bound in key.written.bounds if bound.lowest is not None]
    highest = [bound for bound in key.written.bounds if bound.highest not in (None, 2**31 - 1)]
    if lowest:
        yield f"at least {max(lowest, key=lambda bound: bound.lowest or 0).shown}"
    if highest:
        yield f"at most {min(highest, key=lambda bound: bound.highest or 0).shown.partition(':')[0]}"


def _default(key: Declared, table: str) -> str:
    """What stands where nobody says."""
    if table == "scenario":
        return {"steps": str(defaults.STEPS), "seed": str(defaults.SEED)}.get(key.path, "")
    if table == "control_plane":
        return _default_by_plane(key.path)
    value = key.default
    filled = key.written.first(Filled)
    if filled is not None:
        return filled.words.replace("``", "`")
    if value is REQUIRED:
        return "needed"
    if value is None or value == "" or isinstance(value, dict | tuple) or key.table is not None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int):
        unit = _UNIT_OF_DEFAULT.get(key.field.rpartition("_")[2], "")
        return f"{value}{unit if value else ''}"
    return f"`{value}`"


def _default_by_plane(key: str) -> str:
    """One default, or one by control plane, the most frequent one first."""
    planes: dict[str, list[str]] = {}
    for plane in CONTROL_PLANES:
        value = defaults.control_plane(plane)[key]
        planes.setdefault(str(value).lower() if isinstance(value, bool) else str(value), []).append(plane)
    if key == "name":
        return f"`{defaults.CONTROL_PLANE}`"
    first, *others = sorted(planes, key=lambda value: -len(planes[value]))
    return "; ".join([f"`{first}`", *(f"`{value}` ({', '.join(planes[value])})" for value in others)])


def _meaning(key: Declared) -> str:
    text = key.doc or (docstrings(key.table)[""] if key.table is not None else "")
    source = key.written.first(Source)
    if source is not None:
        text = f"{text.rstrip('.')} ({source.text})."
    return text.replace("``", "`").replace("*", "").replace("|", "\\|")


def _in_code(words: str) -> str:
    """``such as "5ms"`` with the quoted text as code."""
    return re.sub(r'"[^"]*"', lambda quoted: f"`{quoted[0]}`", words)


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
