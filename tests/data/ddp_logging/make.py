"""Records what DDP's ``_get_ddp_logging_data()`` returns: ``python -m tests.data.ddp_logging.make FOLDER``.

Two ranks, gloo, the model of ``tests/data/torch_traces``: before training, and after twelve steps.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def job(rank: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29577")
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(0)
    layers = [nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 8)]
    model = DistributedDataParallel(nn.Sequential(*layers), bucket_cap_mb=0.1)
    (Path(folder) / f"before_rank{rank}.json").write_text(json.dumps(model._get_ddp_logging_data()))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(12):
        optimizer.zero_grad()
        model(torch.randn(16, 64)).square().mean().backward()
        optimizer.step()
    after = model._get_ddp_logging_data()
    (Path(folder) / f"after_rank{rank}.json").write_text(json.dumps(after, indent=1))
    (Path(folder) / f"after_rank{rank}.txt").write_text(f"{after}\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    mp.spawn(job, (sys.argv[1],), nprocs=2)  # type: ignore[no-untyped-call]
