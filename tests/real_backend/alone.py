"""Ranks without torch that negotiate over TCP and move nothing. Run as ``python -m tests.real_backend.alone``.

Arguments: ranks, folder of the store, steps, tensors, loop (``wake`` or a cycle time in ns). More settings come from
the environment. Ranks are forked once everything is imported; each prints one JSON line.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
from itertools import pairwise
from pathlib import Path

from coordsim.protocol.messages import Request
from real_backend.control.stores import FolderStore
from real_backend.engine.assembly import assemble
from real_backend.engine.settings import settings_from


def one_rank(rank: int, ranks: int, folder: Path, steps: int, tensors: int, loop: str) -> None:
    settings = settings_from(data="none", cycle_time_ns=-1 if loop == "wake" else int(loop))
    engine = assemble(settings, FolderStore(folder, 120.0), rank, ranks)
    engine.start()
    requests = [Request(f"t{index}", shape=(index + 1,)) for index in range(tensors)]
    began, cpu, ends = time.perf_counter(), time.process_time(), []
    for _ in range(steps):
        handles = [engine.submit([(request, rank, None)]) for request in requests]
        for handle in handles:
            assert handle.wait(60) == rank
        ends.append(time.perf_counter())
    counters = engine.counters.snapshot()
    took = time.process_time() - cpu
    engine.shut_down()
    facts = {
        "rank": rank, "counters": counters, "torch": "torch" in sys.modules, "seconds": ends[-1] - began, "cpu_s": took,
        "step_s": sorted(later - sooner for sooner, later in pairwise(ends)), "after": engine.counters.cycles,
        "peak_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }  # fmt: skip
    os.write(1, (json.dumps(facts) + "\n").encode())


def main(ranks: int, folder: Path, steps: int, tensors: int, loop: str) -> int:
    """Exit code: how many ranks failed."""
    children = []
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                one_rank(rank, ranks, folder, steps, tensors, loop)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


if __name__ == "__main__":
    given = sys.argv[1:]
    raise SystemExit(main(int(given[0]), Path(given[1]), int(given[2]), int(given[3]), given[4]))
