"""Settings of an engine: those that must be equal on all ranks, and those that each rank may choose."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from coordsim.errors import InputError, Problem
from coordsim.protocol.fusion import rounded_threshold
from coordsim.protocol.groups import GroupTable
from coordsim.protocol.links import tree_radix
from coordsim.protocol.negotiator import Settings
from coordsim.protocol.planes import NEGOTIATED
from coordsim.protocol.stall import StallLimits
from coordsim.units import parse_bytes, parse_time

PREFIX = "COORDSIM_"
CONTROL_TRANSPORTS = ("tcp", "gloo", "mpi")


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Settings of an engine; times in ns, sizes in bytes.

    Each can be set by an environment variable, which is ``COORDSIM_`` and the name in capitals, with units in the
    value.
    """

    control_plane: str = "cached"
    """One of the control planes that negotiate. This and all settings down to ``data`` must be equal on all ranks."""
    control: str = "tcp"
    """Control transport: ``tcp`` (a star, or a tree of ``radix``), ``gloo``, ``mpi``."""
    radix: int = 0
    """Radix of the tree of connections, and of control plane ``hierarchical``. 0: a star up to 64 ranks, else 32."""
    cycle_time_ns: int = -1
    """At least 0: a cycle begins this long after the one before, as in Horovod. -1: on submission."""
    fusion_threshold_bytes: int = 128 << 20
    cache_capacity: int = 1024
    strict_groups: bool = False
    """Every group is reduced alone and as a whole, and no tensor outside one is fused, so that sums are equal in every
    run."""
    ranks_per_node: int = 1
    """Rounds the fusion threshold as Horovod does."""
    small_bytes: int = 4 << 20
    """On the CPU with fusion: the largest reduction (bytes times the ranks that meet at one node of the control tree)
    that goes through the tree's links, in rank order. 0: none."""
    node_memory: bool = True
    """On the CPU with fusion, with all ranks on one node: larger reductions read the other ranks' tensors in place, in
    rank order, where the system allows it."""
    data: str = "auto"
    """Data transport: ``gloo``, ``nccl`` (GPU tensors; CPU tensors still go by gloo), ``auto``, or ``none``."""
    gather_window_ns: int = 1_000_000
    """On submission: how long a rank gathers more tensors before it begins a cycle; shorter if a thread waits."""
    interface: str = ""
    """Name or address of the only interface to listen on. Default: the one that reaches ``MASTER_ADDR``."""
    start_timeout_ns: int = 60_000_000_000
    peer_timeout_ns: int = 60_000_000_000
    """A rank counts as lost after this time without a sign of life from its background thread."""
    data_timeout_ns: int = 1_800_000_000_000
    """Longest collective on data."""
    stall_warning_ns: int = 60_000_000_000
    """Time after which a stall is reported; 0: never."""
    stall_shutdown_ns: int = 0
    """Time after which a stall ends the job; 0: never."""
    record: str = ""
    """Folder for the record of this run, with one stream a rank; empty: no record."""
    record_steps: int = 0
    """Number of steps after which the record ends; 0: it does not end."""
    record_first_steps: int = 20
    """Number of first steps of which every cycle is kept."""
    record_worst_steps: int = 20
    """Number of slowest steps of which every cycle is kept."""
    record_sampled_ranks: int = 8
    """Number of ranks that keep cycles; all ranks keep a summary of every step."""
    record_max_bytes: int = 256 << 20
    """Largest size of one rank's stream."""
    record_digests: bool = False
    """Whether a digest of the response cache is recorded in each cycle, which costs time; for tests."""
    timeline: str = ""
    """Path of rank 0's timeline in Horovod's format; empty: no timeline."""
    timeline_mark_cycles: bool = False

    def __post_init__(self) -> None:
        problems = [*_not_allowed(self)]
        if problems:
            raise InputError(problems)

    @property
    def wakes(self) -> bool:
        """Whether submissions start cycles, and nothing happens between them."""
        return self.cycle_time_ns < 0

    def tree_radix(self, ranks: int) -> int:
        """Return the radix of the tree of connections."""
        return tree_radix(self.radix, ranks)

    def protocol(self, ranks: int) -> Settings:
        """Return the settings of the negotiators of a job of ``ranks``."""
        threshold = rounded_threshold(self.fusion_threshold_bytes, self.ranks_per_node)
        return Settings(
            ranks, threshold, GroupTable(strict=self.strict_groups), self.cache_capacity, self.tree_radix(ranks)
        )

    def stall_limits(self) -> StallLimits:
        return StallLimits(self.stall_warning_ns, self.stall_shutdown_ns)

    def shared(self) -> dict[str, str]:
        """Return, as text, the settings that only this backend has and that must be equal on all ranks."""
        return {
            "control transport": self.control,
            "loop": "on submission" if self.wakes else f"every {self.cycle_time_ns} ns",
            "small reductions (bytes x ranks)": str(self.small_bytes),
            "reductions over the node's memory": str(self.node_memory),
            "data transport": self.data,
        }


def settings_from(
    environment: Mapping[str, str] | None = None, file: Path | None = None, **given: Any
) -> EngineSettings:
    """Return settings from a TOML file, the environment over it, and arguments over both.

    ``file`` defaults to ``COORDSIM_CONFIG``. Raises InputError for unknown names and invalid values, naming the file or
    variable.
    """
    environment = os.environ if environment is None else environment
    named = environment.get(PREFIX + "CONFIG")
    values, problems = _from_file(file or (Path(named) if named else None))
    for name in _FIELDS:
        variable = PREFIX + _outside(name).upper()
        if variable in environment:
            _take(values, problems, "environment", variable, name, environment[variable])
    known = {PREFIX + _outside(name).upper() for name in _FIELDS} | {PREFIX + "CONFIG"} | _OTHER_VARIABLES
    for variable in environment:
        if variable.startswith(PREFIX) and variable not in known:
            problems.append(Problem("environment", variable, variable, "no such variable", tuple(sorted(known))))
    if problems:
        raise InputError(problems)
    return replace(EngineSettings(**values), **given)


_OTHER_VARIABLES = frozenset({"COORDSIM_HOROVOD_PYTHON", "COORDSIM_JOB", "COORDSIM_PROFILE"})
_FIELDS = {each.name: each for each in fields(EngineSettings)}


def _outside(name: str) -> str:
    """Return a field's name as it is used where values have units."""
    return name.removesuffix("_ns").removesuffix("_bytes")


def _from_file(path: Path | None) -> tuple[dict[str, Any], list[Problem]]:
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    if path is None:
        return values, problems
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError.one(str(path), "", None, f"cannot be read: {error}") from error
    outside = {_outside(name): name for name in _FIELDS}
    for key, value in table.items():
        if key in outside:
            _take(values, problems, str(path), key, outside[key], value)
        else:
            problems.append(Problem(str(path), key, key, "no such setting", tuple(sorted(outside))))
    return values, problems


def _take(
    values: dict[str, Any], problems: list[Problem], where: str, key: str, name: str, value: Any
) -> None:
    try:
        values[name] = _parsed(name, value)
    except ValueError as error:
        problems.append(Problem(where, key, value, str(error)))


def _parsed(name: str, value: Any) -> Any:
    kind = _FIELDS[name].type
    if name == "cycle_time_ns" and str(value) in ("", "none", "wake"):
        return -1
    if name.endswith("_ns"):
        return parse_time(value)
    if name.endswith("_bytes"):
        return parse_bytes(value)
    if kind == "bool":
        if str(value).lower() in ("1", "true", "yes", "on"):
            return True
        if str(value).lower() in ("0", "false", "no", "off", ""):
            return False
        raise ValueError(f"{value!r} is neither on nor off")
    if kind == "int":
        try:
            return int(str(value))
        except ValueError:
            raise ValueError(f"{value!r} is no whole number") from None
    return str(value)


def _not_allowed(settings: EngineSettings) -> list[Problem]:
    problems = []
    for name, allowed in (
        ("control_plane", NEGOTIATED), ("control", CONTROL_TRANSPORTS),
        ("data", ("auto", "gloo", "nccl", "none")),
    ):  # fmt: skip
        value = getattr(settings, name)
        if value not in allowed:
            problems.append(Problem("engine settings", name, value, f"unknown {value!r}", allowed))
    if settings.cache_capacity < 1:
        message = "at least 1; without a cache choose control_plane 'coordinator'"
        problems.append(Problem("engine settings", "cache_capacity", settings.cache_capacity, message))
    for name in ("radix", "fusion_threshold_bytes", "small_bytes", "gather_window_ns"):
        if getattr(settings, name) < 0:
            problems.append(Problem("engine settings", _outside(name), getattr(settings, name), "at least 0"))
    for name in ("start_timeout_ns", "peer_timeout_ns", "data_timeout_ns", "ranks_per_node"):
        if getattr(settings, name) <= 0:
            problems.append(Problem("engine settings", _outside(name), getattr(settings, name), "more than 0"))
    if settings.wakes and settings.control != "tcp":
        message = f"{settings.control} cannot wake a rank: set a cycle time, such as cycle_time = \"1ms\""
        problems.append(Problem("engine settings", "cycle_time", settings.cycle_time_ns, message))
    try:
        settings.stall_limits()
    except ValueError as error:
        problems.append(Problem("engine settings", "stall_shutdown", settings.stall_shutdown_ns, str(error)))
    return problems


__all__ = ["EngineSettings", "settings_from"]
