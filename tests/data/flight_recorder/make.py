"""Makes the recordings in this folder: jobs of four gloo ranks on one machine, watched by PyTorch's Flight Recorder.

    python -m tests.data.flight_recorder.make [JOB ...]

Each job leaves one folder with a dump for each rank. A timer ends the jobs: every rank dumps its buffer after two
seconds and exits some time later. What each job does stands at its function.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

HERE = Path(__file__).parent
RANKS = 4
PORT = 29653
STUCK_AFTER_S = 2.0
"""Seconds after its begin at which a job's buffers are dumped: it has ended by then, or hangs."""
SLOW = {"sharded": 20.0}


def mesh(rank: int) -> None:
    """A healthy job on a 2 x 2 mesh: reductions of both dimensions, sends, uneven exchanges, coalesced calls."""
    sides = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    for _ in range(3):
        dist.all_reduce(torch.ones(10), group=sides["tp"].get_group())
    for _ in range(2 + rank % 2):
        dist.all_reduce(torch.ones(20 + rank % 2), group=sides["dp"].get_group())
    swap = [dist.isend(torch.ones(4), (rank + 1) % RANKS), dist.irecv(torch.ones(4), (rank - 1) % RANKS)]
    for work in swap:
        work.wait()
    outputs = [peer + 1 for peer in range(RANKS)]
    dist.all_to_all_single(torch.empty(sum(outputs)), torch.ones((rank + 1) * RANKS), outputs, [rank + 1] * RANKS)
    dist.broadcast(torch.ones(3), 1)
    dist.gather(torch.ones(2), [torch.ones(2) for _ in range(RANKS)] if rank == 0 else None)
    dist.scatter(torch.ones(2), [torch.ones(2) for _ in range(RANKS)] if rank == 1 else None, src=1)
    with dist.distributed_c10d._coalescing_manager():
        dist.all_reduce(torch.ones(7))
        dist.all_reduce(torch.ones(8))
    dist.all_gather_object([None] * RANKS, {"rank": rank})
    dist.barrier()


def sharded(rank: int) -> None:
    """A healthy training of two steps: parameters sharded over one side of the mesh, layers split over the other."""
    sides = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
    parallelize_module(model, sides["tp"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
    fully_shard(model, mesh=sides["dp"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        model(torch.randn(8, 16)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    dist.barrier()


def skipped(rank: int) -> None:
    """Rank 1 leaves out one of the reductions."""
    for step in range(6):
        if not (rank == 1 and step == 3):
            dist.all_reduce(torch.ones(10))
    dist.barrier()


def never_arrived(rank: int) -> None:
    """Rank 2 does not come to the last barrier."""
    for _ in range(4):
        dist.all_reduce(torch.ones(10))
    if rank != 2:
        dist.barrier()


def shapes(rank: int) -> None:
    """Rank 3 reduces another number of values. Gloo aborts the process for it, so the dump comes at once."""
    dist.all_reduce(torch.ones(10))
    dist.all_reduce(torch.ones(12 if rank == 3 else 10), async_op=True)
    _dump(rank, HERE / "shapes")
    os._exit(0)


def dtypes(rank: int) -> None:
    """Rank 0 reduces float64 where the others reduce float32; dumped as :func:`shapes` is."""
    dist.all_reduce(torch.ones(10))
    dist.all_reduce(torch.ones(10, dtype=torch.float64 if rank == 0 else torch.float32), async_op=True)
    _dump(rank, HERE / "dtypes")
    os._exit(0)


def crossed(rank: int) -> None:
    """Two groups of the same ranks, called in another order by rank 1."""
    first, second = dist.new_group([0, 1]), dist.new_group([0, 1])
    dist.barrier()
    if rank < 2:
        for group in (first, second) if rank == 0 else (second, first):
            dist.all_reduce(torch.ones(5), group=group)


def ring(rank: int) -> None:
    """A healthy job whose buffers hold the last 16 calls; the rows of the mesh call at different rates."""
    sides = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    for step in range(8):
        for _ in range(1 + 2 * (rank // 2)):
            dist.all_reduce(torch.ones(10 + rank // 2), group=sides["tp"].get_group())
        if step % 2:
            dist.all_reduce(torch.ones(30))
    dist.barrier()


JOBS: dict[str, Callable[[int], None]] = {
    job.__name__: job for job in (mesh, sharded, skipped, never_arrived, shapes, dtypes, crossed, ring)
}


def _dump(rank: int, folder: Path) -> None:
    """Write the rank's buffer, without stack traces."""
    (folder / f"nccl_trace_rank_{rank}").write_bytes(torch._C._distributed_c10d._dump_fr_trace(True, False, False))


def _run(rank: int, name: str) -> None:
    """One rank of a job: dump at the end, or when nothing was called for some time."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(PORT + list(JOBS).index(name)))
    torch.set_num_threads(1)
    folder = HERE / name
    dist.init_process_group("gloo", rank=rank, world_size=RANKS)

    def end() -> None:
        time.sleep(SLOW.get(name, STUCK_AFTER_S))
        _dump(rank, folder)
        time.sleep(STUCK_AFTER_S)
        os._exit(0)

    threading.Thread(target=end, daemon=True).start()
    with suppress(RuntimeError):  # a rank whose peer has gone
        JOBS[name](rank)
    time.sleep(SLOW.get(name, STUCK_AFTER_S) + 2 * STUCK_AFTER_S)


def main() -> None:
    """Record the jobs that are named, or all."""
    for name in sys.argv[1:] or JOBS:
        (HERE / name).mkdir(exist_ok=True)
        os.environ["TORCH_FR_BUFFER_SIZE"] = "16" if name == "ring" else "2000"
        mp.start_processes(_run, (name,), nprocs=RANKS, start_method="fork")


if __name__ == "__main__":
    main()
