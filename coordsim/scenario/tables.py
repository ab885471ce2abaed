"""Reads one table of a scenario file into the dataclass that declares its keys.

pydantic validates; the models it needs are made from the declarations, and it stays behind this module, which is
imported when :func:`coordsim.scenario.loading.load_scenario` runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StringConstraints,
    ValidationError,
    create_model,
)
from pydantic_core import ErrorDetails

from coordsim.errors import Problem
from coordsim.scenario.declared import REQUIRED, Declared, declared_keys, keys_inside, written
from coordsim.scenario.keys import Bound, Form, NotEmpty, Refusal
from coordsim.scenario.layers import Key, Overlay

T = TypeVar("T")

_LONGEST_VALUE = 60
_TYPE_MESSAGES = {
    "int_type": "is not a whole number",
    "string_type": "is not text",
    "string_too_short": "is empty",
    "bool_type": "is neither true nor false",
    "model_type": "is not a table",
    "dict_type": "is not a table",
}
_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)
"""No unknown keys, and no conversions other than those declared."""


def read_table(
    table: type[T],
    values: Mapping[str, Any],
    overlay: Overlay,
    at: Key,
    *,
    more_keys: tuple[str, ...] = (),
    partial: bool = False,
) -> tuple[T | None, list[Problem]]:
    """``values`` as a ``table``, or None and every mistake in it, placed by ``overlay`` under ``at``.

    ``more_keys`` are accepted by somebody else and offered where a key is unknown; ``partial`` keeps quiet
    about missing keys (their source is known to be missing, and reported already).
    """
    found, problems = read_keys(table, values, overlay, at, more_keys=more_keys, partial=partial)
    return None if found is None else table(**found), problems


def read_keys(
    table: type[object],
    values: Mapping[str, Any],
    overlay: Overlay,
    at: Key,
    *,
    more_keys: tuple[str, ...] = (),
    partial: bool = False,
) -> tuple[dict[str, Any] | None, list[Problem]]:
    """As :func:`read_table`, as the fields' values by their names; tables in the table are left to others where
    ``more_keys`` names them."""
    model = _model(table, frozenset(more_keys))
    try:
        return _values(table, model.model_validate(dict(values))), []
    except ValidationError as error:
        wrong = [details for details in error.errors() if not (partial and details["type"] == "missing")]
        return None, [_problem(model, details, overlay, at, more_keys) for details in wrong]


def shown(value: object) -> str:
    """A raw value as the user wrote it, shortened."""
    text = str(value) if isinstance(value, Decimal) else repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def _model(table: type[object], others: frozenset[str] = frozenset()) -> type[BaseModel]:
    """The pydantic model of the keys that ``table`` declares, without those in ``others``; made once."""
    if (table, others) not in _MODELS:
        keys = tuple(key for key in declared_keys(table) if key.path not in others)
        _MODELS[table, others] = _model_of(table.__name__, keys)
    return _MODELS[table, others]


_MODELS: dict[tuple[type[object], frozenset[str]], type[BaseModel]] = {}


def _model_of(name: str, keys: tuple[Declared, ...]) -> type[BaseModel]:
    """A model with one field a key; keys of dotted names go into the model of the table that they name."""
    made: dict[str, Any] = {}
    for key in keys:
        if "." in key.path:
            continue
        kind = _validated(key.written.kind)
        default = ... if key.default is REQUIRED else key.default
        if key.table is not None:
            inner = _model_of(key.table.__name__, (*declared_keys(key.table), *keys_inside(keys, key.path)))
            kind = inner | None if key.default is None else inner
            if key.default not in (REQUIRED, None):
                default = inner()
        elif key.named is not None:
            entry, own = key.named
            kind = dict[str, _model(entry, frozenset({own}))]  # type: ignore[misc]
            default = {}
        made[key.path] = (kind, default)
    return create_model(name, __config__=_STRICT, **made)


def _validated(kind: Any) -> Any:
    """A declared type as pydantic reads it: what is annotated becomes validators."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        plain, *facts = inner
        validators = tuple(made for fact in facts if (made := _validator(fact)) is not None)
        return Annotated[(_validated(plain), *validators)] if validators else _validated(plain)
    if origin is dict:
        return dict[_validated(inner[0]), _validated(inner[1])]  # type: ignore[misc]
    if type(None) in inner:
        return _validated(next(part for part in inner if part is not type(None))) | None
    return kind


def _validator(fact: object) -> Any:
    match fact:
        case Form(parse=parse):
            return BeforeValidator(parse)
        case Bound():
            return AfterValidator(fact.check)
        case NotEmpty():
            return StringConstraints(min_length=1)
    return None


def _values(table: type[object], read: BaseModel) -> dict[str, Any]:
    """The fields of ``table`` by name, from what pydantic read."""
    made: dict[str, Any] = {}
    for key in declared_keys(table):
        place: Any = read
        for part in key.path.split("."):
            place = getattr(place, part, REQUIRED)
        if place is REQUIRED:
            continue
        if key.table is not None and place is not None:
            place = key.table(**_values(key.table, place))
        elif key.named is not None:
            entry, own = key.named
            place = tuple(entry(**{own: name}, **_values(entry, inner)) for name, inner in place.items())
        if key.owner:
            made[key.owner] = replace(made[key.owner], **{key.field: place})
        else:
            made[key.field] = place
    return made


def _problem(
    model: type[BaseModel], error: ErrorDetails, overlay: Overlay, at: Key, more_keys: tuple[str, ...]
) -> Problem:
    location: Key = error["loc"]
    key = (*at, *location)
    kind = error["type"]
    context = error.get("ctx", {})
    if kind == "missing":
        return overlay.problem(key, "is missing", value="")
    if kind == "extra_forbidden":
        allowed = (*_keys(model, location[:-1]), *(more_keys if len(location) == 1 else ()))
        return overlay.problem(key, "is not a known key", allowed, value=str(location[-1]))
    raw = overlay.get(*key)
    if kind == "literal_error":
        allowed = tuple(re.findall(r"'([^']*)'", context["expected"]))
        return overlay.problem(key, f"{shown(raw)} is not known", allowed, value=raw)
    if kind == "value_error":
        refusal = context["error"]
        if isinstance(refusal, Refusal):
            return overlay.problem(key, f"{shown(raw)} {refusal.message}", refusal.allowed, value=raw)
        return overlay.problem(key, str(refusal), value=raw)  # from coordsim.units: the message shows the value
    return overlay.problem(key, f"{shown(raw)} {_TYPE_MESSAGES.get(kind, error['msg'])}", value=raw)


def _keys(model: type[BaseModel], location: Key) -> tuple[str, ...]:
    """Keys of the table at ``location`` inside ``model``; none where that is no table of known keys."""
    kind: Any = model
    for part in location:
        if _is_table(kind):
            field = kind.model_fields.get(str(part))
            kind = None if field is None else written(field.annotation).plain
        else:  # ``part`` is a name that the user chose
            kind = get_args(kind)[1] if get_origin(kind) is dict else None
    return tuple(kind.model_fields) if _is_table(kind) else ()


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
