"""Makes the recordings in this folder: a tiny model under DDP on two gloo ranks, PyTorch's own recorders watching.

    TORCH_FR_BUFFER_SIZE=2000 python -m tests.data.torch_traces.make

- ``kineto_rank<r>.json.gz``: torch.profiler, five steps marked, shapes recorded;
- ``chakra_rank<r>.json.gz``: ExecutionTraceObserver over one step;
- ``flight_rank<r>.pickle``, ``flight_rank0.json``: the flight recorder's buffer at the end.
"""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ExecutionTraceObserver, ProfilerActivity, profile, schedule

HERE = Path(__file__).parent
RANKS = 2
STEPS = 8


def job(rank: int) -> None:
    """One rank: three steps to warm up, then five that are kept."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29577")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=RANKS)
    torch.manual_seed(0)
    layers = [nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 8)]
    model = DistributedDataParallel(nn.Sequential(*layers), bucket_cap_mb=0.2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    observer = ExecutionTraceObserver()
    plain = HERE / f"chakra_rank{rank}.json"
    observer.register_callback(str(plain))
    trace = HERE / f"kineto_rank{rank}.json"
    with profile(
        activities=[ProfilerActivity.CPU], schedule=schedule(wait=1, warmup=2, active=5), record_shapes=True,
        on_trace_ready=lambda done: done.export_chrome_trace(str(trace)),
    ) as watched:  # fmt: skip
        for step in range(STEPS):
            if step == 6:
                observer.start()
            optimizer.zero_grad()
            model(torch.randn(16, 64)).square().mean().backward()
            optimizer.step()
            if step == 6:
                observer.stop()
            watched.step()
    observer.unregister_callback()
    recorder = torch._C._distributed_c10d
    (HERE / f"flight_rank{rank}.pickle").write_bytes(recorder._dump_fr_trace())
    if rank == 0:
        (HERE / "flight_rank0.json").write_bytes(recorder._dump_fr_trace_json())
    dist.barrier()
    dist.destroy_process_group()
    for path in (plain, trace):
        with open(path, "rb") as source, gzip.open(f"{path}.gz", "wb") as target:
            shutil.copyfileobj(source, target)
        path.unlink()


if __name__ == "__main__":
    mp.spawn(job, nprocs=RANKS)
