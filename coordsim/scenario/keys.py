"""The vocabulary in which a key of a scenario file is declared: beside the field that it becomes.

A field of a frozen dataclass (:mod:`coordsim.scenario.model`, :mod:`coordsim.scenario.recipes`) is one key of a table.
Its type is written with :data:`typing.Annotated`: how people write the value (:class:`Form`: unit, example), its least
and greatest (:class:`Bound`), the key's name where that is not the field's name without its unit
(:class:`KeyName`), and where a default or a bound comes from (:class:`Source`). The docstring below the field says what
the key means. Everything else is derived from that: what a file may hold and what is said of a mistake
(:mod:`coordsim.scenario.tables`), the JSON Schema (:mod:`coordsim.scenario.json_schema`) and the tables of
docs/scenario.md (:mod:`coordsim.scenario.reference`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

from coordsim import units
from coordsim.dtypes import ELEMENT_BYTES

PPM = 1_000_000
LARGEST_SAMPLE_RATE = 10**9
DTYPE_BYTES = {
    name: ELEMENT_BYTES[name]
    for name in (
        "float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool",
    )
}  # fmt: skip
"""Bytes of one value of each type that a scenario's gradients may have."""


class Refusal(ValueError):
    """A value that a key cannot have; ``message`` continues a sentence that begins with the value."""

    def __init__(self, message: str, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.allowed = allowed


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """How people write a value that is more than a number or a text."""

    words: str
    """Continues "written as": ``a time, such as "5ms"``; empty where the type says it all."""
    parse: Callable[[Any], Any]
    """From what the file holds to the field's value; raises Refusal or ValueError."""
    shapes: tuple[Mapping[str, Any], ...] = ()
    """JSON Schemas of what the file may hold, any one of them; none: that of the field's type."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A value's least or greatest; ``shown`` says it with the unit that people write."""

    shown: str
    lowest: int | None = None
    highest: int | None = None

    def check(self, value: int) -> int:
        """``value``; raises Refusal where it is out of bounds."""
        if self.lowest is not None and value < self.lowest:
            raise Refusal(f"must be at least {self.shown}")
        if self.highest is not None and value > self.highest:
            raise Refusal(f"must be at most {self.shown}")
        return value


@dataclass(frozen=True, slots=True)
class KeyName:
    """The key's name in the file. ``step.correlation`` lies in the table of the field whose key is ``step``."""

    name: str


@dataclass(frozen=True, slots=True)
class Unsaid:
    """What the field is where a file does not say; only for fields that have no default of their own."""

    value: Any


@dataclass(frozen=True, slots=True)
class Filled:
    """What stands where a row of a list does not say; whoever reads the list puts it there."""

    words: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where the default or the bound comes from."""

    text: str


@dataclass(frozen=True, slots=True)
class Named:
    """A table of tables, each with a name of its own, which becomes ``field`` of the dataclass that it is."""

    field: str


@dataclass(frozen=True, slots=True)
class NotEmpty:
    """A text of at least one character."""


def at_least(lowest: int, shown: str) -> Bound:
    """``shown`` is ``lowest`` as people write it."""
    return Bound(shown, lowest=lowest)


def at_most(highest: int, shown: str) -> Bound:
    """``shown`` is ``highest`` as people write it."""
    return Bound(shown, highest=highest)


def quantity(kind: str, example: str, parse: Callable[[Any], int]) -> Form:
    """A quantity as text with one of the units of ``kind``, or 0; bare numbers where that kind has them."""
    names = [unit for unit in units.UNITS[kind] if unit]
    bare = "" in units.UNITS[kind]
    number = r"\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
    unit = "|".join(sorted(names, key=len, reverse=True))
    text = {"type": "string", "pattern": rf"^({number}\s*({unit}){'?' if bare else ''}|0)$"}
    plain = {"type": "number", "minimum": 0} if bare else {"const": 0}
    words = f'a {kind}, such as "{example}" ({", ".join(names)}{"; or a bare number" if bare else "; or 0"})'
    return Form(words, parse, (text, plain))


def choice(allowed: tuple[str, ...], not_yet: tuple[str, ...] = ()) -> Form:
    """One of ``allowed``; of ``not_yet``, it is said that this version does not model it."""

    def parse(value: Any) -> Any:
        if value in not_yet:
            raise Refusal("is not modelled yet", allowed)
        if value not in allowed:
            raise Refusal("is not known", allowed)
        return value

    return Form("", parse, ({"type": "string", "enum": list(allowed)},))


def as_it_is(words: str, *shapes: Mapping[str, Any]) -> Form:
    """A value that is read apart, whatever it is."""
    return Form(words, lambda value: value, shapes)


def _parse_replicas(value: Any) -> Any:
    """``"all"``: a copy on every node, which is 0 in the model."""
    if value == "all":
        return 0
    if value == 0 and not isinstance(value, bool):
        raise Refusal('must be at least 1, or "all"')
    return value


def _parse_sample_rate(value: Any) -> int:
    """Samples a second, a bare number, in millionths."""
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        number = Decimal(str(value))
        if number.is_finite() and number <= LARGEST_SAMPLE_RATE and round(number * PPM) > 0:
            return round(number * PPM)
    raise Refusal(f"is not a number of samples a second, above 0 and at most {LARGEST_SAMPLE_RATE}")


def _parse_rates(value: Any) -> int | dict[int, int]:
    """One rate, or rates by batch; a batch is a key of the file, so it is text."""
    if not isinstance(value, dict):
        return _parse_sample_rate(value)
    if not value:
        raise Refusal("has no rate")
    by_batch: dict[int, int] = {}
    for batch, rate in value.items():
        text = str(batch)
        if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text)):
            raise Refusal(f"has a key {text[:40]!r} that is no batch: rates by batch are written {{ 64 = 688 }}")
        by_batch[int(text)] = _parse_sample_rate(rate)
    return by_batch


def _parse_gradient_bytes(value: Any) -> int:
    """A size with its unit, or a bare number of bytes."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole else units.parse_bytes(value)


def _parse_counts(value: Any) -> tuple[int, ...]:
    if isinstance(value, list) and value and all(type(one) is int and 1 <= one < 2**31 for one in value):
        return tuple(value)
    raise Refusal("is not a list of whole numbers of at least 1")


def _parse_shape(value: Any) -> tuple[int, ...]:
    """``"64x3x7x7"`` or ``[64, 3, 7, 7]``; a scalar is ``"1"``."""
    parts: list[Any] = value.strip().split("x") if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts:
        raise Refusal("is not a shape such as 64x3x7x7 (a scalar is 1)")
    sizes = [
        int(part) if isinstance(part, str) and part.isascii() and part.isdecimal() and len(part) < 19 else part
        for part in parts
    ]
    if not all(isinstance(size, int) and not isinstance(size, bool) and size >= 1 for size in sizes):
        raise Refusal("is not a shape such as 64x3x7x7 with sizes of at least 1 (a scalar is 1)")
    return tuple(sizes)


_WHOLE = {"type": "integer", "minimum": 1}
_SAMPLES_A_SECOND = {"type": "number", "exclusiveMinimum": 0}
_INT32 = at_most(2**31 - 1, "2147483647")

Time = Annotated[int, quantity("time", "5ms", units.parse_time)]
TickTime = Annotated[Time, at_least(1, "1ns")]
PassTime = Annotated[TickTime, at_most(3600 * 10**9, "1h")]  # so that noise (x 2^19) stays inside int64
Picoseconds = Annotated[int, quantity("short time", "4.28ns", units.parse_picoseconds)]
Bytes = Annotated[int, quantity("size", "64MiB", units.parse_bytes)]
Rate = Annotated[int, quantity("rate", "25GB/s", units.parse_rate)]
Bandwidth = Annotated[Rate, at_least(1, "1B/s")]
FlopRate = Annotated[int, quantity("FLOP rate", "60TF/s", units.parse_flops), at_least(1, "1FLOP/s")]
FlopCount = Annotated[int, quantity("number of FLOP", "24.5GFLOP", units.parse_count_flops)]
Power = Annotated[int, quantity("power", "300W", units.parse_power)]
Share = Annotated[int, quantity("share", "8%", units.parse_share), at_most(PPM, "100%")]
Percent = Annotated[int, quantity("ratio", "75%", units.parse_percent), at_least(1, "1%"), at_most(100, "100%")]
HopPercent = Annotated[
    int, quantity("ratio", "150%", units.parse_percent), at_least(1, "1%"), at_most(10_000, "10000%")
]
Permille = Annotated[int, quantity("ratio", "1.1", units.parse_permille)]
Count = Annotated[int, at_least(1, "1"), _INT32]
Natural = Annotated[int, at_least(0, "0"), _INT32]
Radix = Annotated[int, at_least(2, "2"), _INT32]
Name = Annotated[str, NotEmpty()]
Dtype = Annotated[str, choice(tuple(DTYPE_BYTES))]
SampleRate = Annotated[int, Form("samples a second", _parse_sample_rate, (_SAMPLES_A_SECOND,))]
SampleRates = Annotated[
    int | dict[int, int],
    Form(
        "samples a second at the stated batch, or by batch, such as { 64 = 688, 128 = 810 }", _parse_rates,
        (_SAMPLES_A_SECOND,
         {"type": "object", "minProperties": 1, "propertyNames": {"pattern": "^0*[1-9][0-9]{0,8}$"},
          "additionalProperties": _SAMPLES_A_SECOND}),
    ),
]  # fmt: skip
Replicas = Annotated[
    int,
    Form('a number of at least 1, or "all"', _parse_replicas, (_WHOLE, {"const": "all"})),
    at_least(0, '1, or "all"'),
    _INT32,
]
GradientBytes = Annotated[
    int,
    Form('bytes, or a size such as "64MiB"', _parse_gradient_bytes, (_WHOLE, {"type": "string"})),
    at_least(1, "1"),
]
Counts = Annotated[
    tuple[int, ...],
    Form("a list of numbers, each at least 1", _parse_counts, ({"type": "array", "items": _WHOLE, "minItems": 1},)),
]
Shape = Annotated[
    tuple[int, ...],
    Form(
        'sizes, such as "64x3x7x7" or [64, 3, 7, 7]; a scalar is 1', _parse_shape,
        ({"type": "string", "pattern": "^[0-9]+(x[0-9]+)*$"}, {"type": "array", "items": _WHOLE, "minItems": 1}),
    ),
]  # fmt: skip
