"""Layered settings: later layers win key by key, and every value remembers which layer it came from.

Used by :mod:`coordsim.scenario.loading` so that a mistake is reported where the user wrote it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources.abc import Traversable
from typing import Any

from coordsim.errors import Problem
from coordsim.scenario.files import TooDeep, check_depth

Key = tuple[str | int, ...]
"""Path into the settings; an int is a position in a list."""
Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a layer comes from."""

    label: str
    """File name or flag, as the user knows it."""
    folder: Traversable | None = None
    """What file names in this layer are relative to; None: the working directory."""
    ours: bool = False
    """Built-in default or catalog entry, not written by the user."""


@dataclass(frozen=True, slots=True)
class Layer:
    tree: Tree
    origin: Origin


class Overlay:
    """The settings of several layers merged, with the origin of each."""

    def __init__(self, fallback: Origin) -> None:
        self.values: Tree = {}
        self._origins: dict[Key, Origin] = {(): fallback}
        self._stated: dict[tuple[Key, Origin], Any] = {}

    def apply(self, layer: Layer) -> None:
        """Put ``layer`` on top: tables merge key by key, anything else replaces."""
        self._merge(self.values, layer.tree, (), layer.origin)

    def origin(self, key: Key) -> Origin:
        """Who set ``key``, or the table that it lies in."""
        for length in range(len(key), 0, -1):
            if key[:length] in self._origins:
                return self._origins[key[:length]]
        return self._origins[()]

    def stated(self, key: Key, origin: Origin) -> Any:
        """The raw value that ``origin`` gave to ``key``, whoever replaced it later; None when it gave none."""
        return self._stated.get((key, origin))

    def get(self, *key: str | int) -> Any:
        """The raw value at ``key``; None when there is none."""
        value: Any = self.values
        for part in key:
            try:
                value = value[part]
            except (LookupError, TypeError):
                return None
        return value

    def problem(self, key: Key, message: str, allowed: tuple[str, ...] = (), value: Any = None) -> Problem:
        """A mistake at ``key``, placed where the user wrote it. ``value`` defaults to the raw value there."""
        found = self.get(*key) if value is None else value
        return Problem(self.origin(key).label, dotted(key), found, message, allowed)

    def set_by_user(self, section: str) -> dict[str, Origin]:
        """Every value in ``section`` that is not ours, by its dotted key inside the section."""
        return {
            dotted(key[1:]): origin
            for key, origin in self._origins.items()
            if key[:1] == (section,)
            and len(key) > 1
            and not origin.ours
            and not isinstance(self.get(*key), dict)
        }

    def _merge(self, target: Tree, tree: Tree, at: Key, origin: Origin) -> None:
        for name, value in tree.items():
            key = (*at, name)
            if isinstance(value, dict):
                if not isinstance(target.get(name), dict):
                    target[name] = {}
                    self._origins[key] = origin
                self._merge(target[name], value, key, origin)
            else:
                if isinstance(target.get(name), dict):
                    self._forget(key)
                target[name] = value
                self._origins[key] = origin
                self._stated[key, origin] = value

    def _forget(self, key: Key) -> None:
        """Forget who set what in the table ``key``."""
        for known in [k for k in self._origins if k[: len(key)] == key and k]:
            del self._origins[known]


def dotted(key: Key) -> str:
    """``("workload", "tensors", 3, "ready")`` as ``workload.tensors[3].ready``."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def parse_overrides(overrides: Sequence[str]) -> tuple[list[Layer], list[Problem]]:
    """One layer for each ``key=value``; the value is read as TOML where it is TOML, else as text."""
    layers: list[Layer] = []
    problems: list[Problem] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            problems.append(Problem("--set", "", text, f"{text!r} is not key=value, such as steps=5"))
            continue
        tree: Tree = {parts[-1]: _value(value.strip())}
        for part in reversed(parts[:-1]):
            tree = {part: tree}
        try:
            check_depth(tree)
        except TooDeep as error:
            problems.append(Problem("--set", key.strip(), text, str(error)))
            continue
        layers.append(Layer(tree, Origin("--set")))
    return layers, problems


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}", parse_float=Decimal)
    except (ValueError, RecursionError):
        return text
    value = parsed["value"]
    if isinstance(value, Decimal) and not value.is_finite():
        return text
    plain = isinstance(value, bool | int | Decimal | str | list) and len(parsed) == 1
    return value if plain else text
