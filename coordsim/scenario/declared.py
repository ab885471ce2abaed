"""The keys of a table, read off the dataclass that declares them (:mod:`coordsim.scenario.keys`).

No pydantic here: what needs only names, words and bounds (checks, the JSON Schema, the page of keys) reads this.
"""

from __future__ import annotations

import ast
import inspect
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from coordsim.scenario.keys import Bound, Form, KeyName, Named, Unsaid

F = TypeVar("F")

_UNITS = ("_ns", "_ps", "_bytes", "_Bps", "_mW", "_permille", "_percent", "_ppm")
"""Ends of fields' names that a key lacks, as its value says the unit."""
_KEPT = ("sample_bytes", "dataset_bytes")
"""Keys that end like a unit, and are called so in files."""
REQUIRED: Any = MISSING
"""Default of a key that has none."""


@dataclass(frozen=True, slots=True)
class Written:
    """An annotated type, taken apart."""

    kind: Any
    """The whole of it."""
    plain: Any
    """The type, without None and annotations."""
    facts: tuple[object, ...]
    """What is annotated, from the inside out."""

    def first(self, kind: type[F]) -> F | None:
        """The first fact of that kind; None where there is none."""
        return next((fact for fact in self.facts if isinstance(fact, kind)), None)

    @property
    def form(self) -> Form | None:
        """How the value is written, where the type does not say it."""
        return self.first(Form)

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """Bounds of the value, all of which hold."""
        return tuple(fact for fact in self.facts if isinstance(fact, Bound))


def written(kind: Any) -> Written:
    """What the annotated type ``kind`` says of a value."""
    if get_origin(kind) is Annotated:
        inner, *facts = get_args(kind)
        below = written(inner)
        return Written(kind, below.plain, (*below.facts, *facts))
    if get_origin(kind) in (Union, types.UnionType):
        choices = [choice for choice in get_args(kind) if choice is not type(None)]
        if len(choices) == 1:
            return replace(written(choices[0]), kind=kind)
    return Written(kind, kind, ())


@dataclass(frozen=True, slots=True)
class Declared:
    """One key of a table."""

    path: str
    """The key, dotted where it lies in the table of another one."""
    field: str
    """The field that it becomes."""
    owner: str
    """The field whose value has that field; empty: the table's dataclass itself."""
    written: Written
    """Its annotated type."""
    table: type[object] | None
    """The dataclass that declares the keys of this table; None where the key is no table."""
    named: tuple[type[object], str] | None
    """Of a table of tables: the dataclass that declares one of them, and its field that is its name."""
    default: Any
    """What the field is where nobody says; :data:`REQUIRED` where somebody must."""
    home: type[object]
    """The dataclass that has the field."""

    @property
    def doc(self) -> str:
        """What it means, on one line: the docstring below the field, in the class that states it."""
        texts = (docstrings(base).get(self.field, "") for base in self.home.__mro__)
        return next((text for text in texts if text), "")



def declared_keys(table: type[object]) -> tuple[Declared, ...]:
    """The keys that ``table``, a dataclass, declares, in the order of its fields."""
    if table not in _DECLARED:
        _DECLARED[table] = tuple(_declared(table, ""))
    return _DECLARED[table]


_DECLARED: dict[type[object], tuple[Declared, ...]] = {}
"""What is read once."""


def key_names(table: type[object]) -> tuple[str, ...]:
    """The keys of the table, without those of the tables in it."""
    return tuple(key.path for key in declared_keys(table) if "." not in key.path)


def number_keys(table: type[object], below: str = "") -> tuple[str, ...]:
    """Dotted keys of all numbers of the table and of the tables in it."""
    numbers: list[str] = []
    for key in declared_keys(table):
        if key.table is not None:
            numbers += number_keys(key.table, f"{below}{key.path}.")
        elif key.written.plain is int:
            numbers.append(f"{below}{key.path}")
    return tuple(numbers)


def _declared(table: type[object], owner: str) -> Iterator[Declared]:
    hints = get_type_hints(table, include_extras=True)
    for field in fields(cast("Any", table)):
        value = written(hints[field.name])
        name = value.first(KeyName)
        if owner and name is None:
            continue
        path = name.name if name is not None else _without_unit(field.name)
        inner = cast("type[object]", value.plain) if is_dataclass(value.plain) else None
        one = value.first(Named)
        named = (get_args(value.plain)[0], one.field) if one is not None else None
        default = _default(field, value)
        yield Declared(
            path, field.name, owner, value, inner if value.form is None else None, named, default, table
        )
        if inner is not None and value.form is not None:  # one key writes it all but what has a key of its own
            yield from _declared(inner, field.name)


def _without_unit(field: str) -> str:
    if field in _KEPT:
        return field
    return next((field.removesuffix(unit) for unit in _UNITS if field.endswith(unit)), field)


def _default(field: Field[Any], value: Written) -> Any:
    if field.default is not MISSING:
        return field.default
    if field.default_factory is not MISSING:
        return field.default_factory()
    unsaid = value.first(Unsaid)
    return REQUIRED if unsaid is None else unsaid.value


def keys_inside(keys: Iterable[Declared], outer: str) -> tuple[Declared, ...]:
    """Of ``keys``, those that lie in the table of the key ``outer``, by their names there."""
    start = f"{outer}."
    return tuple(replace(key, path=key.path.removeprefix(start)) for key in keys if key.path.startswith(start))


def docstrings(table: type[object]) -> dict[str, str]:
    """Field -> the docstring below it, on one line; the class's own first line under ``""``."""
    return _docstrings(table.__module__).get(table.__name__, {})


@cache
def _docstrings(module: str) -> dict[str, dict[str, str]]:
    """By the classes of a module, which is read as source: Python keeps no docstring of a field."""
    if module == "builtins":
        return {}
    texts: dict[str, dict[str, str]] = {}
    for part in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(part, ast.ClassDef):
            own = texts[part.name] = {"": (ast.get_docstring(part) or "").partition("\n")[0]}
            for field, below in pairwise(part.body):
                match field, below:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(doc))):
                        own[name] = " ".join(doc.split())
    return texts
