"""One training job of the prediction benchmark: what it reduces with, what it computes, where it sleeps.

``torchrun --nproc-per-node 2 job.py --kind ddp --layers 6 --width 256 --forward-ms 20 --backward-ms 20``. It knows
nothing of this project but the names of its backend and its optimizer.
"""

import argparse
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

KINDS = ("ddp", "coord", "optimizer", "fsdp2")


def pause(ms: float) -> None:
    if ms:
        time.sleep(ms / 1e3)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--bucket-mb", type=float, default=1.0)
    parser.add_argument("--input-ms", type=float, default=0.0)
    parser.add_argument("--forward-ms", type=float, default=0.0)
    parser.add_argument("--backward-ms", type=float, default=0.0)
    parser.add_argument("--optimizer-ms", type=float, default=0.0)
    parser.add_argument("--steps", type=int, default=46)
    return parser.parse_args()


class Samples(torch.utils.data.Dataset):
    def __init__(self, count: int, width: int, pause_ms: float) -> None:
        self.count, self.width, self.pause_ms = count, width, pause_ms

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        pause(self.pause_ms)
        return torch.randn(self.width, generator=torch.Generator().manual_seed(index))


def go_first() -> None:
    """On a machine that others use, this process before theirs: what is measured is the job, not its neighbours. Linux
    weighs sessions against each other, and torchrun gives each rank one."""
    nice = os.environ.get("BENCH_NICE")
    if nice:
        Path("/proc/self/autogroup").write_text(nice)


def main() -> None:
    go_first()
    asked = parsed()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(asked.width, asked.width) for _ in range(asked.layers)))
    middle = net[asked.layers // 2]
    middle.register_forward_pre_hook(lambda *_: pause(asked.forward_ms))
    if asked.backward_ms:
        middle.register_full_backward_hook(lambda *_: pause(asked.backward_ms))
    optimizer = torch.optim.SGD
    model: nn.Module = net
    made: object
    if asked.kind == "optimizer":
        import real_backend as rb

        rb.init()
        rb.broadcast_parameters(net.state_dict(), root_rank=0)
        made = rb.DistributedOptimizer(optimizer(net.parameters(), lr=1e-4), net.named_parameters())
    else:
        dist.init_process_group("coord" if asked.kind == "coord" else "gloo")
        if asked.kind == "fsdp2":
            from torch.distributed.fsdp import fully_shard

            for layer in net:
                fully_shard(layer)
            fully_shard(net)
        else:
            model = nn.parallel.DistributedDataParallel(net, bucket_cap_mb=asked.bucket_mb)
        made = optimizer(model.parameters(), lr=1e-4)
    samples = iter(torch.utils.data.DataLoader(
        Samples(asked.batch * asked.steps, asked.width, asked.input_ms / asked.batch), batch_size=asked.batch
    ))  # fmt: skip
    for _ in range(asked.steps):
        loss = model(next(samples)).square().mean()
        loss.backward()
        pause(asked.optimizer_ms)
        made.step()
        made.zero_grad()
    if asked.kind == "optimizer":
        rb.shutdown()
    else:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
