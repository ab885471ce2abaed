"""Records execution traces of PyTorch in which gradients are accumulated in several ways.

``python -m tests.data.execution_traces.make FOLDER``; CPU, gloo, two ranks where there is DDP. Nothing is edited.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ExecutionTraceObserver
from torch.utils.checkpoint import checkpoint


@contextlib.contextmanager
def recorded(path: Path) -> Iterator[None]:
    """Write what runs within as ``path``, gzipped."""
    plain = path.with_suffix("")
    observer = ExecutionTraceObserver()
    observer.register_callback(str(plain))
    observer.start()
    yield
    observer.stop()
    observer.unregister_callback()
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        file.write(plain.read_bytes())
    plain.unlink()


def net(width: int = 8) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, 4))


def two_passes(rank: int, folder: str) -> None:
    """DDP, three profiled steps of two micro-batches, the first under no_sync."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29731")
    dist.init_process_group("gloo", rank=rank, world_size=2)
    model = DistributedDataParallel(net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        with model.no_sync():
            model(torch.ones(2, 8)).sum().backward()
        model(torch.ones(2, 8)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    step()
    with recorded(Path(folder) / f"two_passes_rank{rank}.json.gz"):
        for number in range(3):
            with torch.profiler.record_function(f"ProfilerStep#{number + 2}"):
                step()
        with torch.profiler.record_function("ProfilerStep#5"):  # still open when recording stops
            model(torch.ones(2, 8)).sum().backward()
            dist.barrier()
            _stop_here()
    dist.destroy_process_group()


def _stop_here() -> None:
    torch._C._profiler._disable_execution_trace_observer()


def zeroed(path: Path) -> None:
    """Gradients stay and are set to zero: every accumulation is added."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(2, 8)).sum().backward()
    with recorded(path):
        for _ in range(2):
            optimizer.zero_grad(set_to_none=False)
            for _ in range(2):
                model(torch.ones(2, 8)).sum().backward()
            optimizer.step()


def checkpointed(path: Path) -> None:
    """Three equal blocks, each with a backward of its own within backward."""
    torch.manual_seed(0)
    blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(3)])
    optimizer = torch.optim.SGD(blocks.parameters(), lr=0.1)
    with recorded(path):
        for _ in range(2):
            value = torch.ones(2, 8, requires_grad=True)
            for block in blocks:
                value = checkpoint(block, value, use_reentrant=True)
            value.sum().backward()
            optimizer.step()
            optimizer.zero_grad()


def adversarial(path: Path) -> None:
    """Two models, each with an optimizer and a backward pass of its own."""
    makes, judges = net(8), net(4)
    first, second = torch.optim.SGD(makes.parameters(), lr=0.1), torch.optim.Adam(judges.parameters())
    with recorded(path):
        for _ in range(2):
            judges(makes(torch.ones(2, 8)).detach()).sum().backward()
            second.step()
            second.zero_grad()
            judges(makes(torch.ones(2, 8))).sum().backward()
            first.step()
            first.zero_grad()
            second.zero_grad()


def unmarked(path: Path) -> None:
    """No optimizer and no profiler: nothing marks an iteration but backward itself."""
    model = net()
    with recorded(path):
        for _ in range(3):
            model(torch.ones(2, 8)).sum().backward()


def main(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    mp.spawn(two_passes, (str(folder),), nprocs=2)  # type: ignore[no-untyped-call]
    recordings: tuple[Callable[[Path], None], ...] = (zeroed, checkpointed, adversarial, unmarked)
    for record in recordings:
        record(folder / f"{record.__name__}.json.gz")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
