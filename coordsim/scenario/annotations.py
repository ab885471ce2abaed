"""What stands behind a type of :mod:`coordsim.scenario.schema`: bounds that speak, and how a value is written.

Both also say it in JSON Schema, where JSON Schema can (:mod:`coordsim.scenario.json_schema`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetJsonSchemaHandler, WithJsonSchema
from pydantic_core import PydanticCustomError, core_schema

from coordsim import units


def refuse(message: str, allowed: tuple[str, ...] = ()) -> PydanticCustomError:
    """A mistake in one value; ``message`` continues a sentence that begins with the value."""
    return PydanticCustomError("refused", "{message}", {"message": message, "allowed": allowed})


@dataclass(frozen=True, slots=True)
class Bound:
    """A value's least or greatest; ``shown`` says it with the unit that people write."""

    shown: str
    lowest: int | None = None
    highest: int | None = None

    def check(self, value: int) -> int:
        """``value``, or a refusal."""
        if self.lowest is not None and value < self.lowest:
            raise refuse(f"must be at least {self.shown}")
        if self.highest is not None and value > self.highest:
            raise refuse(f"must be at most {self.shown}")
        return value

    def __get_pydantic_core_schema__(
        self, source: Any, handler: Callable[[Any], core_schema.CoreSchema]
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Whole numbers are bounded; text with a unit cannot be."""
        found = handler(schema)
        if found.get("type") == "integer":
            bounds = {"minimum": self.lowest, "maximum": self.highest}
            found |= {key: value for key, value in bounds.items() if value is not None}
        return found


def at_least(lowest: int, shown: str) -> Bound:
    """``shown`` is ``lowest`` as people write it."""
    return Bound(shown, lowest=lowest)


def at_most(highest: int, shown: str) -> Bound:
    """``shown`` is ``highest`` as people write it."""
    return Bound(shown, highest=highest)


def written(kind: str, example: str) -> WithJsonSchema:
    """A quantity as text with one of the units of ``kind``, or 0; bare numbers where that kind has them."""
    names = [unit for unit in units.UNITS[kind] if unit]
    bare = "" in units.UNITS[kind]
    number = r"\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
    unit = "|".join(sorted(names, key=len, reverse=True))
    text = {"type": "string", "pattern": rf"^({number}\s*({unit}){'?' if bare else ''}|0)$"}
    plain = {"type": "number", "minimum": 0} if bare else {"const": 0}
    form = f'a {kind}, such as "{example}" ({", ".join(names)}{"; or a bare number" if bare else "; or 0"})'
    return one_of(form, text, plain)


def one_of(form: str, *shapes: Mapping[str, Any]) -> WithJsonSchema:
    """A value of one of ``shapes``; ``form`` says how people write it."""
    return WithJsonSchema({"anyOf": [dict(shape) for shape in shapes], "description": form})
