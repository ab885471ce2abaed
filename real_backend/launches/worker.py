"""One rank of a launch, recorded as real Horovod's were (``docs/validation.md`` 2): the same program, over ours."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import real_backend as rb
from real_backend.engine.handles import Handle

POLL_S = 50e-6
DETAILED_STEPS = 3
"""Number of last steps of which each submission and each end is kept, on the first and the last rank."""
SCALED_DOWN = 64


def main(path: Path) -> None:
    job = json.loads(path.read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    rb.init(**job["settings"])
    workloads = {name: run(spec, job["scaled"]) for name, spec in job["workloads"].items()}
    Path(job["results"], f"rank{rb.rank()}.json").write_text(json.dumps(workloads), encoding="utf-8")
    rb.shutdown()


def run(spec: dict[str, Any], scaled: Sequence[int]) -> dict[str, Any]:
    """Return one workload's times: step began, last submission done, last wait returned; seconds of the machine's
    clock."""
    rank, ranks, steps = rb.rank(), rb.size(), int(spec["steps"])
    units = _units(spec, scaled)
    order = list(range(len(units)))
    times: dict[str, Any] = {"t_start": [], "t_submitted": [], "t_end": [], "submit_detail": {}, "done_detail": {}}
    rb.barrier()
    for step in range(steps):
        if spec.get("order") == "random":
            random.Random(f"{step} {rank}").shuffle(order)
        start = time.monotonic()
        if spec.get("straggler_ms") and rank == ranks - 1:
            time.sleep(spec["straggler_ms"] / 1e3)
        handles, submits = _submit(units, order, spec.get("delay_us", 0) / 1e6)
        submitted = time.monotonic()
        ends = [_wait(handle) for handle in handles]
        for key, at in (("t_start", start), ("t_submitted", submitted), ("t_end", time.monotonic())):
            times[key].append(at)
        if step >= steps - DETAILED_STEPS and rank in (0, ranks - 1):
            times["submit_detail"][str(step)] = [at - start for at in submits]
            times["done_detail"][str(step)] = [at - start for at in ends]
    return times


def _units(spec: dict[str, Any], scaled: Sequence[int]) -> list[tuple[str, list[torch.Tensor]]]:
    """Return (name, tensors) of what is submitted at once."""
    prefix = str(spec.get("prefix", "small"))
    if spec.get("sizes"):
        prefix += f".{spec['sizes']}"
        sizes = [max(size // SCALED_DOWN, 1) for size in scaled]
    else:
        sizes = [int(spec.get("numel", 64))] * int(spec.get("tensors", 161))
    tensors = [torch.ones(size) for size in sizes]
    groups = spec.get("groups")
    if not groups:
        return [(f"{prefix}.{index}", [tensor]) for index, tensor in enumerate(tensors)]
    short, longer = divmod(len(tensors), groups)
    units, at = [], 0
    for group in range(groups):
        size = short + (group < longer)
        units.append((f"{prefix}.g{groups}.{group}", tensors[at : at + size]))
        at += size
    return units


def _submit(
    units: Sequence[tuple[str, list[torch.Tensor]]], order: Sequence[int], delay_s: float
) -> tuple[list[Handle], list[float]]:
    handles, times = [], []
    for index in order:
        name, tensors = units[index]
        for _ in tensors:
            if delay_s:
                time.sleep(delay_s)
        if len(tensors) == 1:
            handles.append(rb.allreduce_async_(tensors[0], name))
        else:
            handles.append(rb.grouped_allreduce_async(tensors, name, outputs=tensors))
        times.append(time.monotonic())
    return handles, times


def _wait(handle: Handle) -> float:
    while not handle.poll():
        time.sleep(POLL_S)
    handle.wait()
    return time.monotonic()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)
