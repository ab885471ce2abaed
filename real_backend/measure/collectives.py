"""One rank that times collectives of a torch backend: ``python -m real_backend.measure.collectives FOLDER BACKEND
quick|full``, with torchrun's variables in its environment.

Calls follow one another without a barrier between them: each is one. Leaves its stamps, and the CPU time of each call,
as JSON in FOLDER.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.distributed as dist

from coordsim.record.files import whole_file
from real_backend.measure.plan import Plan

WARM_UP, FIRST = 4, 24
"""Calls before those that count; more before the first size, for connections and threads begin with them."""
OPERATIONS = ("ALLREDUCE", "ALLGATHER", "REDUCESCATTER")


@dataclass(frozen=True)
class TimedCollective:
    """One rank's calls of one operation and size."""

    operation: str
    nbytes: int
    """The larger of what a rank puts in and what it gets out."""
    entered_ns: list[int]
    left_ns: list[int]
    cpu_ns: list[int]
    """CPU time of the process over each call, libraries' threads included."""


def operation_of(name: str, values: torch.Tensor) -> Callable[[], object]:
    """A call of ``name`` on ``values``; what the number of ranks does not divide is cut off."""
    ranks = dist.get_world_size()
    share = max(values.numel() // ranks, 1)
    whole, part = values[: share * ranks], torch.ones(share)
    if name == "ALLREDUCE":
        return lambda: dist.all_reduce(values)
    if name == "ALLGATHER":
        return lambda: dist.all_gather_into_tensor(whole, part)
    return lambda: dist.reduce_scatter_tensor(part, whole)


def timed(name: str, nbytes: int, repeats: int, warm_up: int = WARM_UP) -> TimedCollective:
    """``repeats`` calls after ``warm_up`` others."""
    once = operation_of(name, torch.ones(max(nbytes // 4, dist.get_world_size())))
    for _ in range(warm_up):
        once()
    entered, left, spent = [0] * repeats, [0] * repeats, [0] * (repeats + 1)
    spent[0] = time.process_time_ns()
    for index in range(repeats):
        entered[index] = time.perf_counter_ns()
        once()
        left[index] = time.perf_counter_ns()
        spent[index + 1] = time.process_time_ns()
    return TimedCollective(name, nbytes, entered, left, [after - before for before, after in pairwise(spent)])


def main(folder: Path, backend: str, plan: Plan) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(backend)
    timings: list[TimedCollective] = []
    for name in OPERATIONS:
        for nbytes in plan.collective_bytes(name):
            repeats = plan.collective_repeats(nbytes)
            timings.append(timed(name, nbytes, repeats, WARM_UP if timings else FIRST))
    with whole_file(folder / f"rank{os.environ['RANK']}.json") as fresh:
        fresh.write_text(json.dumps([asdict(timing) for timing in timings]))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Plan(sys.argv[3] == "quick"))
