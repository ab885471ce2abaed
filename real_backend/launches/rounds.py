"""Control alone, at more ranks than one would start with torch: ``python -m real_backend.launches.rounds ...``.

Ranks are forked once everything is imported, agree over TCP on a group of tensors step after step, and move nothing.
Each tells the CPU time that a step takes it, and when its steps ended.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback
from itertools import pairwise
from pathlib import Path
from typing import Any

from coordsim.protocol.messages import Request
from real_backend.control.stores import FolderStore
from real_backend.engine.assembly import assemble
from real_backend.engine.settings import EngineSettings

WARM_STEPS = 3
START_TIMEOUT_S = 120


def rounds(ranks: int, tensors: int, steps: int, plane: str) -> dict[str, Any]:
    """One job: by rank the CPU time of a step, us; all ends of steps on the last rank, s. Raises RuntimeError."""
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
    cpu_s, cycles, ends = 0.0, 0, []
    for step in range(WARM_STEPS + steps):
        if step == WARM_STEPS:
            cpu_s, cycles = time.process_time(), engine.counters.cycles
        engine.submit(unit, grouped=True).wait(START_TIMEOUT_S)
        ends.append(time.monotonic())
    cpu_s, cycles = time.process_time() - cpu_s, engine.counters.cycles - cycles
    engine.shut_down()
    return {"cpu_us": cpu_s / steps * 1e6, "cycles": cycles / steps, "ends_s": ends[WARM_STEPS - 1 :]}


def main(ranks: int, tensors: int, steps: int, plane: str) -> None:
    """Print one JSON object."""
    try:
        print(json.dumps(rounds(ranks, tensors, steps, plane)))
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
