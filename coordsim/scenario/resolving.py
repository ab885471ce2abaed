"""From merged settings to dataclasses, section by section, so that a mistake in one hides none in another."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel

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
from coordsim.scenario.mistakes import shown, validate
from coordsim.scenario.model import Scenario
from coordsim.scenario.schema import ClusterTable, ControlPlaneTable, NoiseTable, RunTable
from coordsim.scenario.timing import Device
from coordsim.scenario.workloads import build_workload

T = TypeVar("T", bound=BaseModel)

_SECTIONS = ("workload", "cluster", "control_plane", "noise")
_UNSOURCED = ("base", "name", "description", "sources", "ranges")


def resolve(overlay: Overlay, unknown: frozenset[str]) -> tuple[Scenario | None, list[Problem]]:
    """The scenario that ``overlay`` describes, or None and every mistake in it.

    ``unknown`` names sections whose base is unknown and reported: what is missing there is not reported
    again.
    """
    problems: list[Problem] = []

    def section(table: type[T], name: str) -> T | None:
        values = overlay.get(name)
        if values is None:
            return None  # reported by the loader
        if not isinstance(values, dict):
            problems.append(overlay.problem((name,), f"{shown(values)} is not a table"))
            return None
        found, mistakes = validate(table, values, overlay, (name,), partial=name in unknown)
        problems.extend(mistakes)
        return found

    top: Tree = {key: value for key, value in overlay.values.items() if key not in _SECTIONS}
    if top.pop("include", None) is not None:
        problems.append(overlay.problem(("include",), "belongs in a scenario file"))
    more_keys = (*_SECTIONS, "include")
    run, mistakes = validate(RunTable, top, overlay, (), more_keys=more_keys, partial="cluster" in unknown)
    problems += mistakes
    cluster_table = section(ClusterTable, "cluster")
    plane_table = section(ControlPlaneTable, "control_plane")
    noise_table = section(NoiseTable, "noise")
    device = None
    if cluster_table is not None:
        device = Device(cluster_table.machine.gpu, cluster_table.machine.device_flops)
    workload = None
    if "workload" in overlay.values:
        workload, mistakes = build_workload(
            overlay, device, _sources(overlay, "workload"), ranks=run.ranks if run is not None else None,
            partial="workload" in unknown,
        )
        problems += mistakes

    plane = plane_table.build() if plane_table is not None else None
    noise = noise_table.build() if noise_table is not None else None
    cluster = None
    if cluster_table is not None:
        problems += check_ranges(cluster_table, overlay)
        kept = {key: each for key, each in cluster_table.ranges.items() if _still_holds(key, overlay)}
        cluster_table = cluster_table.model_copy(update={"ranges": kept})
        sourced = cluster_table.model_copy(update={"sources": _sources(overlay, "cluster")})
        cluster = sourced.build()
        problems += check_control_network(cluster, overlay)
        problems += check_data_network(cluster, overlay)
        problems += check_power(cluster, overlay)
    if plane is not None:
        problems += check_control_plane(plane, overlay)
        if workload is not None:
            problems += check_groups(plane, workload, overlay)
            problems += check_clashes(plane, workload, overlay)
    if run is not None and cluster is not None:
        problems += check_ranks(run.ranks, cluster, overlay)
    if run is None or cluster is None or plane is None or noise is None or workload is None:
        return None, problems
    problems += check_noise(noise, overlay)
    problems += check_length(run.steps, run.ranks, workload, cluster, plane, noise, overlay)
    return Scenario(workload, cluster, plane, noise, run.ranks, run.steps, run.seed), problems


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
        told = overlay.origin((section, "sources", key))
        if key.partition(".")[0] not in _UNSOURCED and (key not in sources or told != origin):
            sources[key] = f"set in {origin.label}" if origin.label != "--set" else "set by --set"
    return sources
