"""Scripts that know nothing of this project, as text, and `coordsim profile` around torchrun around them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordsim.record.ranks import RankRecord, read_folder
from coordsim.record.store import read_run
from coordsim.record.trace import Trace
from tests.real_backend import warm

HEAD = """
import os, signal, sys, time
import torch
import torch.distributed as dist
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(*(nn.Sequential(nn.Linear(32, 32), nn.Tanh()) for _ in range(4)))
"""
DDP = """
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group(BACKEND)
rank = dist.get_rank()
model = DistributedDataParallel(model, bucket_cap_mb=0.01)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
"""
FSDP = """
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
dist.init_process_group(BACKEND)
rank = dist.get_rank()
mesh = init_device_mesh("cpu", (dist.get_world_size(),))
for each in model:
    fully_shard(each, mesh=mesh)
fully_shard(model, mesh=mesh)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
"""
FSDP1 = """
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
dist.init_process_group(BACKEND)
rank = dist.get_rank()
model = FullyShardedDataParallel(
    model, auto_wrap_policy=ModuleWrapPolicy({nn.Linear}), device_id=torch.device("cpu"), use_orig_params=True
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
"""
SPAWNED = """
import sys
import torch
import torch.distributed as dist
from torch import nn

def main(rank, ranks, meeting):
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks)
    model = nn.parallel.DistributedDataParallel(nn.Linear(8, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(4):
        model(torch.ones(2, 8)).sum().backward()
        optimizer.step()
    dist.destroy_process_group()

if __name__ == "__main__":
    ranks = int(sys.argv[1])
    torch.multiprocessing.spawn(main, (ranks, f"{__file__}.{ranks}"), ranks)
"""
OPTIMIZER = """
import real_backend as rb
rb.init()
rank = rb.rank()
optimizer = rb.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), model.named_parameters())
"""
LOOP = """
class Late(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(LATE if rank == 1 else 0)
        return gradient

generator = torch.Generator().manual_seed(rank)
for step in range(STEPS):
    optimizer.zero_grad()
    output = model(torch.randn(8, 32, generator=generator))
    Late.apply(output).square().mean().backward()
    optimizer.step()
    AFTER
"""
WEIGHTS = """
def full(each):
    return each.full_tensor() if hasattr(each, "full_tensor") else each
digest = [full(each).detach().numpy().tobytes().hex() for each in model.parameters()]
if rank == 0:
    print("weights", *digest, flush=True)
"""


TIDIES = """
import gc
time.sleep(0.5)
if dist.is_initialized():
    dist.destroy_process_group()
del model, optimizer
gc.collect()
time.sleep(0.3)
"""
"""Behind a script that runs cold: torch 2.13's gloo hangs in a destructor, or aborts the process at exit ("terminate
called without an active exception"), hooks or not, as long as one of its threads has something of Python's to let go
of. Warm ranks end without destructors."""


def script(*parts: str, backend: str = "gloo", steps: int = 8, late: float = 0.0, after: str = "pass") -> str:
    """One script; ``after`` is done behind each step."""
    text = "".join([HEAD, *parts])
    for name, value in (("BACKEND", repr(backend)), ("STEPS", str(steps)), ("LATE", str(late)), ("AFTER", after)):
        text = text.replace(name, value)
    return text


START_RANKS = str(Path(__file__).with_name("start_ranks.py"))
"""A launcher that does not import torch."""


@dataclass
class Profiled:
    """What became of it."""

    done: subprocess.CompletedProcess[str]
    run: Path

    @property
    def stored(self) -> tuple[Trace, dict[str, Any]]:
        return read_run(self.run).trace, json.loads((self.run / "manifest.json").read_text())

    @property
    def ranks(self) -> list[RankRecord]:
        return read_folder(self.run / "ranks")


def launched(folder: Path, text: str, ranks: int = 2, cold: bool = False) -> list[str]:
    """The command that runs ``text`` on ``ranks`` ranks, 0 for none; ``cold``: under torchrun."""
    path = folder / "train.py"
    path.write_text(text + TIDIES if cold else text, encoding="utf-8")
    if cold:
        torchrun = str(Path(sys.executable).parent / "torchrun")
        return [torchrun, "--standalone", "--nproc-per-node", str(ranks), str(path)]
    return [sys.executable, START_RANKS, str(ranks), str(path)]


def call(
    command: list[str], folder: Path, cold: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """``command`` to its end: as a fork of a process that has torch loaded, or ``cold``, as itself."""
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    if not cold and command[0] == sys.executable:
        return warm.call(command[1:], folder, surroundings)
    return subprocess.run(
        command, cwd=folder, env=surroundings, capture_output=True, text=True, timeout=300, check=False
    )


def profiled(
    folder: Path, text: str, *options: str, ranks: int = 2, command: list[str] | None = None, cold: bool = False,
    **environment: str,
) -> Profiled:  # fmt: skip
    run = folder / "run"
    command = command or launched(folder, text, ranks, cold)
    ours = [sys.executable, "-m", "coordsim", "profile", "--out", str(run), *options, "--", *command]
    return Profiled(call(ours, folder, cold, **environment), run)
