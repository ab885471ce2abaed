"""Control alone, at more ranks than one would start with torch: ``python -m real_backend.launches.rounds ...``.

Ranks are forked once everything is imported, agree over TCP on a group of tensors step after step, and move nothing.
Each tells the CPU time that a step takes it, how often it was woken and waited for a core, and when its steps ended.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
import traceback
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from coordsim.protocol.messages import Request
from real_backend.control.stores import FolderStore
from real_backend.engine.assembly import assemble
from real_backend.engine.settings import EngineSettings

WARM_STEPS = 3
START_TIMEOUT_S = 120


def rounds(ranks: int, tensors: int, steps: int, plane: str) -> dict[str, Any]:
    """One job: by rank the CPU time of a step, us, its wakes and its wait for a core, us; how long steps took.

    Raises RuntimeError.
    """
    with tempfile.TemporaryDirectory(prefix="coordsim-rounds-") as name:
        folder = Path(name)
        children = [_forked(rank, ranks, folder, tensors, steps, plane) for rank in range(ranks)]
        failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
        if failed:
            raise RuntimeError(f"{failed} of {ranks} ranks failed; what they said is above")
        found = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(ranks)]
    ends = [max(times) for times in zip(*(each["ends_s"] for each in found), strict=True)]
    return {
        "plane": plane, "ranks": ranks, "tensors": tensors, "cores": len(os.sched_getaffinity(0)),
        "cpu_us": [each["cpu_us"] for each in found], "cycles": found[0]["cycles"],
        "wakes": [each["wakes"] for each in found], "queued_us": [each["queued_us"] for each in found],
        "step_us": [(later - sooner) * 1e6 for sooner, later in pairwise(ends)],
    }  # fmt: skip


def _forked(rank: int, ranks: int, folder: Path, tensors: int, steps: int, plane: str) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        found = _one_rank(rank, ranks, folder, tensors, steps, plane)
        (folder / f"rank{rank}.json").write_text(json.dumps(found))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _one_rank(rank: int, ranks: int, folder: Path, tensors: int, steps: int, plane: str) -> dict[str, Any]:
    settings = EngineSettings(
        data="none", control_plane=plane, interface="127.0.0.1", start_timeout_ns=START_TIMEOUT_S * 10**9
    )
    engine = assemble(settings, FolderStore(folder, START_TIMEOUT_S), rank, ranks)
    engine.start()
    unit = [(Request(f"t{index}", shape=(64, 64)), rank, None) for index in range(tensors)]
    before, cycles, ends, cpu_us = _spent(), 0, [], []
    for step in range(WARM_STEPS + steps):
        if step == WARM_STEPS:
            before, cycles = _spent(), engine.counters.cycles
        engine.submit(unit, grouped=True).wait(START_TIMEOUT_S)
        ends.append(time.monotonic())
        cpu_us.append(time.process_time() * 1e6)
    spent = {name: (after - before[name]) / steps for name, after in _spent().items()}
    spent["cpu_us"] = middle([after - sooner for sooner, after in pairwise(cpu_us[WARM_STEPS - 1 :])])
    cycles = engine.counters.cycles - cycles
    engine.shut_down()
    return {**spent, "cycles": cycles / steps, "ends_s": ends[WARM_STEPS - 1 :]}


def middle(values: list[float]) -> float:
    """Mean of the middle half: some steps take a cycle more than others, and a few are disturbed by the machine."""
    ordered = sorted(values)
    quarter = len(ordered) // 4
    return fmean(ordered[quarter : len(ordered) - quarter])


def _spent() -> dict[str, float]:
    """By this process until now: how often a thread of it slept, and how long its threads waited for a core while they
    could have run, us (0 where the kernel does not count that)."""
    queued_ns = 0
    for task in Path("/proc/self/task").glob("*/schedstat"):
        try:
            queued_ns += int(task.read_text().split()[1])
        except (OSError, ValueError, IndexError):
            continue
    return {
        "wakes": resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw,
        "queued_us": queued_ns / 1e3,
    }


def main(ranks: int, tensors: int, steps: int, plane: str) -> None:
    """Print one JSON object."""
    try:
        print(json.dumps(rounds(ranks, tensors, steps, plane)))
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
