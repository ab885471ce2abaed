"""Measures this machine: starts the ranks, one size of job after the other, and puts their stamps together."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from coordsim.errors import EnvironmentProblem
from coordsim.record.measurement import Measurement, Series
from real_backend.measure.control import Stamped
from real_backend.measure.counting import counting
from real_backend.measure.plan import Plan

BACKENDS = ("gloo", "coord")
"""Of torch.distributed, whose collectives can be measured here."""
CROWDS = (2, 3, 4, 8)
"""Ranks that a backend's collectives are measured with: what sharing cores costs is the point."""
_OWN_TIMES = ("compute", "sleep")
"""Of each rank apart; all other kinds last from the last entrance to the last exit."""
DEADLINE_S = 120.0
"""Of one job; whoever is not done then is killed."""


def measure(
    ranks: Sequence[int], quick: bool = False, progress: Callable[[str, int, int], None] = lambda *_: None,
    backend: str | None = None,
) -> Measurement:  # fmt: skip
    """Everything, for jobs of each number of ``ranks`` (at least 2) on this machine.

    ``backend``: of torch, whose collectives are measured as well (:func:`measure_backend`) at :data:`CROWDS`
    ranks. ``progress`` is told what is done, and how many of how many things are. Raises EnvironmentProblem when ranks
    do not start, fail, or do not end.
    """
    plan, began = Plan(quick), time.monotonic()
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    series: list[Series] = []
    missing: dict[str, str] = {}
    for index, size in enumerate(ranks):
        progress(f"{size} ranks", index, len(ranks) + 1)
        found, absent = _job(size, quick or size > cores)  # what no fit uses need not take long
        series += found
        missing |= absent
    progress("coordinator", len(ranks), len(ranks) + 1)
    series += counting(plan)
    if backend is not None:
        series += measure_backend(backend, CROWDS, quick, progress)
    taken = {
        "date": datetime.now(UTC).date().isoformat(), "took_s": round(time.monotonic() - began, 1), "quick": quick,
        "ranks": list(ranks),
    }  # fmt: skip
    return Measurement("MEASURED", facts(load), taken, tuple(series), missing)


def measure_backend(
    backend: str, ranks: Sequence[int], quick: bool = False,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> list[Series]:  # fmt: skip
    """Collectives of ``backend`` (one of :data:`BACKENDS`) alone, for jobs of each number of ``ranks`` on this machine:
    how long each call took from the last entrance to the last exit, and its CPU time on a rank (mean over ranks).

    Raises EnvironmentProblem as :func:`measure`, and without torch.
    """
    if find_spec("torch") is None:
        raise EnvironmentProblem(f"measuring {backend} needs torch: pip install 'coordsim[torch]'")
    series: list[Series] = []
    for index, size in enumerate(ranks):
        progress(f"{backend}, {size} ranks", index, len(ranks))
        with tempfile.TemporaryDirectory(prefix="coordsim-measure-") as name:
            folder = Path(name)
            plan = "quick" if quick else "full"
            words = [sys.executable, "-m", "real_backend.measure.collectives", name, backend, plan]
            port = str(_free_port())
            shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size),
                      "LOCAL_WORLD_SIZE": str(size)}  # fmt: skip
            of_rank = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
            _run(folder, [words] * size, of_rank)
            by_rank = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(size)]
        series += merged_collectives(by_rank, backend)
    return series


def merged_collectives(by_rank: Sequence[Sequence[Mapping[str, Any]]], backend: str) -> list[Series]:
    """All ranks' timed collectives ([rank][...]) as series of walls and of CPU times; the path is BACKEND/OPERATION."""
    found = []
    for calls in zip(*by_rank, strict=True):
        path, nbytes, ranks = f"{backend}/{calls[0]['operation']}", calls[0]["nbytes"], len(calls)
        entered = [max(at) for at in zip(*(each["entered_ns"] for each in calls), strict=True)]
        left = [max(at) for at in zip(*(each["left_ns"] for each in calls), strict=True)]
        found.append(Series("collective", ranks, _durations(entered, left), nbytes, path=path))
        cpu = tuple(sum(of_call) / ranks for of_call in zip(*(each["cpu_ns"] for each in calls), strict=True))
        found.append(Series("collective_cpu", ranks, cpu, nbytes, path=path))
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def facts(load: float) -> dict[str, Any]:
    """Of this machine; ``load``: its load average over a minute before the measurement."""
    return {
        "name": platform.node(), "cpu": _cpu(), "cores": len(os.sched_getaffinity(0)), "load_before": round(load, 2),
        "system": platform.platform(terse=True), "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("coordsim", "numpy", "torch")},
    }  # fmt: skip


def _job(ranks: int, quick: bool) -> tuple[list[Series], dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="coordsim-measure-") as name:
        folder = Path(name)
        words = [sys.executable, "-m", "real_backend.measure.rank", str(folder)]
        commands = [[*words, str(rank), str(ranks), "quick" if quick else "full"] for rank in range(ranks)]
        _run(folder, commands, [{}] * ranks)
        by_rank = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(ranks)]
    stamps = [[Stamped(**each) for each in one["series"]] for one in by_rank]
    return merged(stamps, platform.node()), by_rank[0]["missing"]


def _run(folder: Path, commands: Sequence[Sequence[str]], variables: Sequence[Mapping[str, str]]) -> None:
    """One process for each of ``commands``, with one thread to compute, until all have ended well."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    processes = []
    try:
        for rank, (command, own) in enumerate(zip(commands, variables, strict=True)):
            with open(folder / f"rank{rank}.log", "wb") as log:
                processes.append(subprocess.Popen(
                    command, env={**environment, **own}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                ))  # fmt: skip
        _wait(processes, folder)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def _wait(processes: Sequence[subprocess.Popen[bytes]], folder: Path) -> None:
    """Until all have ended well."""
    deadline = time.monotonic() + DEADLINE_S
    while any(process.poll() is None for process in processes):
        failed = [rank for rank, process in enumerate(processes) if process.poll()]
        if failed or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    for rank, process in enumerate(processes):
        code = process.poll()
        if code:
            said = (folder / f"rank{rank}.log").read_text(errors="replace").strip().splitlines()
            raise EnvironmentProblem(f"measuring: rank {rank} failed: {said[-1] if said else f'exit code {code}'}")
        if code is None and time.monotonic() > deadline:
            raise EnvironmentProblem(f"measuring: rank {rank} had not ended after {DEADLINE_S:g} s")


def merged(stamps: Sequence[Sequence[Stamped]], node: str) -> list[Series]:
    """All ranks' stamps ([rank][...]) as series. One clock serves all processes of a machine (CLOCK_MONOTONIC)."""
    ranks = len(stamps)
    found = []
    together: dict[tuple[str, int, int, str], list[Stamped]] = {}
    for rank, own in enumerate(stamps):
        for each in own:
            if each.what in _OWN_TIMES:
                took = _durations(each.entered_ns, each.left_ns)
                found.append(Series(each.what, ranks, took, each.nbytes, each.count, each.path, rank, node))
            else:
                together.setdefault((each.what, each.nbytes, each.count, each.path), []).append(each)
    for (what, nbytes, count, path), each_rank in together.items():
        entered = [max(at) for at in zip(*(each.entered_ns for each in each_rank), strict=True)]
        left = [max(at) for at in zip(*(each.left_ns for each in each_rank), strict=True)]
        found.append(Series(what, ranks, _durations(entered, left), nbytes, count, path))
    return found


def _durations(entered_ns: Sequence[int], left_ns: Sequence[int]) -> tuple[float, ...]:
    return tuple(float(left - entered) for entered, left in zip(entered_ns, left_ns, strict=True))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()
