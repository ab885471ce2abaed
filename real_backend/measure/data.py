"""Timings of the data transport, path by path. It is the only file of this folder that needs torch."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from coordsim.protocol.messages import Request, respond_to
from real_backend.control.tree import TreeTransport
from real_backend.data.torch_data import TorchData
from real_backend.engine.handles import Bell, Handle, Task
from real_backend.engine.settings import EngineSettings
from real_backend.measure.control import Stamped, meet, timed
from real_backend.measure.plan import MIB, PATHS, Plan


def allreduces(transport: TreeTransport, folder: Path, plan: Plan) -> list[Stamped]:
    """Time averages of one float32 tensor, in place; all ranks must call this. ``folder`` is one that all ranks see."""
    torch.set_num_threads(1)
    defaults = EngineSettings(ranks_per_node=transport.ranks)
    settings = {
        "auto": defaults,
        "links": replace(defaults, small_bytes=1024 * MIB),
        "memory": replace(defaults, small_bytes=0),
        "gloo": replace(defaults, small_bytes=0, node_memory=False),
    }
    series = []
    for path in PATHS:
        store = dist.FileStore(str(folder / f"torch_{path}"), transport.ranks)
        data = TorchData(store, transport.rank, transport.ranks, settings[path], transport, time.perf_counter_ns)
        for nbytes in plan.allreduce_bytes(path):
            meet(transport)
            series.append(_allreduce(data, nbytes, plan.allreduce_repeats(nbytes), path))
        if path == "memory" and data._memory is None:
            series = [each for each in series if each.path != "memory"]
        meet(transport)
        data.close()
    return series


def _allreduce(data: TorchData, nbytes: int, repeats: int, path: str) -> Stamped:
    values = torch.ones(nbytes // 4)
    request = Request("measured", shape=(nbytes // 4,))
    response = respond_to(request)
    tasks = [Task(request, values, values, Handle(Bell(lambda: None), 1, False), 0)]
    return timed("allreduce", repeats, lambda: data.perform(response, tasks), nbytes, path=path)
