"""From merged settings to dataclasses, section by section, so that a mistake in one hides none in another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from coordsim.errors import Problem
from coordsim.scenario.checks import (
    check_clashes,
    check_control_network,
    check_control_plane,
    check_data_network,
    check_groups,
    check_length,
    check_noise,
    check_power,
    check_ranges,
    check_ranks,
)
from coordsim.scenario.layers import Overlay, Tree
from coordsim.scenario.model import Cluster, ControlPlane, Noise, Scenario, Workload
from coordsim.scenario.recipes import ClusterEntry
from coordsim.scenario.tables import read_keys, read_table, shown
from coordsim.scenario.timing import Device
from coordsim.scenario.workloads import build_workload

T = TypeVar("T")

_SECTIONS = ("workload", "cluster", "control_plane", "noise")
_UNSOURCED = ("base", "name", "description", "sources", "ranges", "collectives")


def resolve(overlay: Overlay, unknown: frozenset[str]) -> tuple[Scenario | None, list[Problem]]:
    """The scenario that ``overlay`` describes, or None and every mistake in it.

    ``unknown`` names sections whose base is unknown and reported: what is missing there is not reported
    again.
    """
    reading = _Reading(overlay, unknown)
    run = reading.top_level()
    entry = reading.section(ClusterEntry, "cluster")
    plane = reading.section(ControlPlane, "control_plane")
    noise = reading.section(Noise, "noise")
    ranks: int | None = run["ranks"] if run is not None else None
    workload = reading.workload(entry, ranks)
    cluster = reading.cluster(entry) if entry is not None else None
    reading.problems += _clashes(overlay, ranks, workload, cluster, plane)
    if run is None or cluster is None or plane is None or noise is None or workload is None:
        return None, reading.problems
    scenario = Scenario(workload, cluster, plane, noise, **run)
    reading.problems += check_noise(noise, overlay)
    reading.problems += check_length(scenario, overlay)
    return scenario, reading.problems


@dataclass(slots=True)
class _Reading:
    """The tables of ``overlay``, read one by one, and every mistake found so far."""

    overlay: Overlay
    unknown: frozenset[str]
    problems: list[Problem] = field(default_factory=list)

    def top_level(self) -> dict[str, Any] | None:
        """The keys outside all sections, by the fields of a scenario that they become."""
        top: Tree = {key: value for key, value in self.overlay.values.items() if key not in _SECTIONS}
        if top.pop("include", None) is not None:
            self.problems.append(self.overlay.problem(("include",), "belongs in a scenario file"))
        more_keys = (*_SECTIONS, "include")
        run, mistakes = read_keys(
            Scenario, top, self.overlay, (), more_keys=more_keys, partial="cluster" in self.unknown
        )
        self.problems += mistakes
        return run

    def section(self, table: type[T], name: str) -> T | None:
        """The section ``name`` as a ``table``."""
        values = self.overlay.get(name)
        if values is None:
            return None  # reported by the loader
        if not isinstance(values, dict):
            self.problems.append(self.overlay.problem((name,), f"{shown(values)} is not a table"))
            return None
        read, mistakes = read_table(table, values, self.overlay, (name,), partial=name in self.unknown)
        self.problems += mistakes
        return read

    def workload(self, entry: ClusterEntry | None, ranks: int | None) -> Workload | None:
        """The workload on a GPU of the cluster."""
        if "workload" not in self.overlay.values:
            return None
        device = Device(entry.machine.gpu, entry.machine.device_flops) if entry is not None else None
        sources = _sources(self.overlay, "workload")
        workload, mistakes = build_workload(
            self.overlay, device, sources, ranks=ranks, partial="workload" in self.unknown
        )
        self.problems += mistakes
        return workload

    def cluster(self, entry: ClusterEntry) -> Cluster:
        """The cluster, with the ranges that still hold and everybody's sources."""
        self.problems += check_ranges(entry, self.overlay)
        ranges = tuple(
            replace(one, key=one.key if one.key.startswith("noise.") else f"cluster.{one.key}")
            for one in entry.ranges if _still_holds(one.key, self.overlay)
        )  # fmt: skip
        cluster = replace(entry.cluster(), ranges=ranges, sources=_sources(self.overlay, "cluster"))
        self.problems += check_control_network(cluster, self.overlay)
        self.problems += check_data_network(cluster, self.overlay)
        self.problems += check_power(cluster, self.overlay)
        return cluster


def _clashes(
    overlay: Overlay, ranks: int | None, workload: Workload | None, cluster: Cluster | None, plane: ControlPlane | None
) -> Iterator[Problem]:
    """Mistakes between sections, of those that could be read."""
    if plane is not None:
        yield from check_control_plane(plane, overlay)
        if workload is not None:
            yield from check_groups(plane, workload, overlay)
            yield from check_clashes(plane, workload, overlay)
    if ranks is not None and cluster is not None:
        yield from check_ranks(ranks, cluster, overlay)


def _still_holds(key: str, overlay: Overlay) -> bool:
    """Whether the number of a range is the one that was stated beside it; a later value has a range of its own."""
    path = key.split(".")
    at = tuple(path) if path[0] == "noise" else ("cluster", *path)
    return overlay.origin(at) == overlay.origin(("cluster", "ranges", key, "low"))


def _sources(overlay: Overlay, section: str) -> dict[str, str]:
    """Where each number comes from: the entry's own account, or who set it instead."""
    written = overlay.get(section, "sources")
    sources = dict(written) if isinstance(written, dict) else {}
    for key, origin in overlay.set_by_user(section).items():
        stated_by = overlay.origin((section, "sources", key))
        if key.partition(".")[0] not in _UNSOURCED and (key not in sources or stated_by != origin):
            sources[key] = f"set in {origin.label}" if origin.label != "--set" else "set by --set"
    return sources
