"""What a recorded job was set to, as far as it can be known."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from coordsim.errors import InputError
from coordsim.formats.horovod import EventKind, TimelineReader

_MEMBER = re.compile(r"(.+)_([0-9]{1,6})of([0-9]{1,6})", re.DOTALL)
_GIVEN = "given"
_DEFAULTS = {
    "cache_capacity": 1024, "fusion_threshold_bytes": 128 << 20, "disable_group_fusion": 0, "cycle_time_us": 1000,
}  # fmt: skip
_LIMITS = {"ranks": (1, 100_000), "cache_capacity": (0, 1 << 31), "fusion_threshold_bytes": (0, 1 << 62)}
_ENVIRONMENT = {
    "HOROVOD_CACHE_CAPACITY": ("cache_capacity", 1),
    "HOROVOD_FUSION_THRESHOLD": ("fusion_threshold_bytes", 1),
    "HOROVOD_DISABLE_GROUP_FUSION": ("disable_group_fusion", 1),
    "HOROVOD_CYCLE_TIME": ("cycle_time_us", 1000),
}
"""Variable -> (setting, factor from its unit to ours)."""


@dataclass(frozen=True, slots=True)
class Setting:
    value: int
    source: str
    """Where it comes from, in words."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What the recorded job was set to."""

    ranks: Setting
    cache_capacity: Setting
    fusion_threshold_bytes: Setting
    disable_group_fusion: Setting
    """1: groups and single tensors fuse with nothing else (docs/horovod.md 4.3)."""
    cycle_time_us: Setting


def description_of(path: Path) -> Path | None:
    """``x.json`` beside the recording ``x.timeline.json[.gz]``, if it is there."""
    stem, timeline, _ = path.name.partition(".timeline.json")
    beside = path.with_name(f"{stem}.json")
    return beside if stem and timeline and beside.is_file() else None


def settings_of(path: Path, given: Mapping[str, int]) -> tuple[RunSettings, tuple[tuple[str, ...], ...]]:
    """Settings of the recording ``path`` and, where groups fuse with nothing else, the groups by their names.

    ``given`` first (keys of :class:`RunSettings`), then the description beside it, then Horovod's defaults; ranks are
    counted in the file when nobody names them. Raises InputError for values that cannot be.
    """
    found = {key: Setting(value, _GIVEN) for key, value in given.items()}
    for key, setting in _described(path).items():
        if key == "ranks" and key in found and found[key].value != setting.value:
            message = f"{found[key].value} ranks, but {setting.source} says {setting.value}"
            raise InputError.one("--ranks", "", found[key].value, message)
        found.setdefault(key, setting)
    for key, value in _DEFAULTS.items():
        found.setdefault(key, Setting(value, "Horovod's default"))
    strict = bool(found["disable_group_fusion"].value)
    if strict or "ranks" not in found:
        counted, names = _survey(path, whole=strict)
        found.setdefault("ranks", counted)
    for key, (least, most) in _LIMITS.items():
        value, source = found[key].value, found[key].source
        if not least <= value <= most:
            where = f"--{key.replace('_', '-')}" if source == _GIVEN else source
            raise InputError.one(where, "", value, f"{value} is not between {least} and {most:,}")
    return RunSettings(**found), _groups(names) if strict else ()


def _described(path: Path) -> dict[str, Setting]:
    """What the description beside a recording says. Raises InputError when it is there and is none."""
    sibling = description_of(path)
    if sibling is None:
        return {}
    try:
        said = json.loads(sibling.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError.one(str(sibling), "", None, f"describes {path.name} but is not JSON: {error}") from error
    environment = said.get("env", {}) if isinstance(said, dict) else None
    if not isinstance(environment, dict):
        raise InputError.one(str(sibling), "env", None, "expected an object with the recording's environment")
    found = {}
    if "n" in said:
        if type(said["n"]) is not int:
            raise InputError.one(str(sibling), "n", said["n"], "expected a number of ranks")
        found["ranks"] = Setting(said["n"], f"n in {sibling.name}")
    for variable, (key, scale) in _ENVIRONMENT.items():
        if variable in environment:
            text = str(environment[variable])
            if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,6})?", text):
                raise InputError.one(str(sibling), f"env.{variable}", text, "expected a number")
            found[key] = Setting(round(float(text) * scale), f"{variable} in {sibling.name}")
    return found


def _survey(path: Path, whole: bool) -> tuple[Setting, list[str]]:
    """Ranks as counted in the first slow negotiation that ended; and, with ``whole``, all tensors of the file."""
    ticks: dict[str, set[int]] = {}
    names: dict[str, None] = {}
    ranks = 0
    for event in TimelineReader(path):
        if event.kind is EventKind.NEGOTIATE:
            ticks[event.tensor] = set()
            names[event.tensor] = None
        elif event.kind is EventKind.TICK:
            ticks[event.tensor].add(event.rank)
        elif event.kind is EventKind.AGREED:
            ranks = max(ranks, len(ticks.pop(event.tensor)))
            if ranks and not whole:
                break
    if not ranks:
        return Setting(2, "no request was counted in the file; for hits any number will do"), list(names)
    return Setting(ranks, "requests counted in the file"), list(names)


def _groups(names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Groups by Horovod's names, ``<base>_<i>of<n>``; incomplete ones are left out."""
    found: dict[tuple[str, int], dict[int, str]] = {}
    for name in names:
        match = _MEMBER.fullmatch(name)
        if match:
            found.setdefault((match[1], int(match[3])), {})[int(match[2])] = name
    return tuple(
        tuple(members[index] for index in sorted(members))
        for (_, count), members in found.items()
        if sorted(members) == list(range(1, count + 1))
    )
