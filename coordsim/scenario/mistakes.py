"""Validate one table, and say what pydantic found in the words of :class:`coordsim.errors.Problem`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from coordsim.errors import Problem
from coordsim.scenario.layers import Key, Overlay

T = TypeVar("T", bound=BaseModel)

_LONGEST_VALUE = 60
_TYPE_MESSAGES = {
    "int_type": "is not a whole number",
    "string_type": "is not text",
    "string_too_short": "is empty",
    "bool_type": "is neither true nor false",
    "model_type": "is not a table",
    "dict_type": "is not a table",
}


def validate(
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
    try:
        return table.model_validate(dict(values)), []
    except ValidationError as error:
        found = [e for e in error.errors() if not (partial and e["type"] == "missing")]
        return None, [_problem(table, e, overlay, at, more_keys) for e in found]


def shown(value: object) -> str:
    """A raw value as the user wrote it, shortened."""
    text = str(value) if isinstance(value, Decimal) else repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def _problem(
    table: type[BaseModel], error: ErrorDetails, overlay: Overlay, at: Key, more_keys: tuple[str, ...]
) -> Problem:
    location: Key = error["loc"]
    key = (*at, *location)
    kind = error["type"]
    context = error.get("ctx", {})
    if kind == "missing":
        return overlay.problem(key, "is missing", value="")
    if kind == "extra_forbidden":
        allowed = (*_keys(table, location[:-1]), *(more_keys if len(location) == 1 else ()))
        return overlay.problem(key, "is not a known key", allowed, value=str(location[-1]))
    raw = overlay.get(*key)
    if kind == "literal_error":
        allowed = tuple(re.findall(r"'([^']*)'", context["expected"]))
        return overlay.problem(key, f"{shown(raw)} is not known", allowed, value=raw)
    if kind == "value_error":  # from coordsim.units: the message shows the value
        return overlay.problem(key, str(context["error"]), value=raw)
    message = context["message"] if kind == "refused" else _TYPE_MESSAGES.get(kind, error["msg"])
    return overlay.problem(key, f"{shown(raw)} {message}", tuple(context.get("allowed", ())), value=raw)


def _keys(table: type[BaseModel], location: Key) -> tuple[str, ...]:
    """Keys of the table at ``location`` inside ``table``."""
    for part in location:
        inner = table.model_fields[str(part)].annotation if str(part) in table.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return ()
        table = inner
    return tuple(table.model_fields)
