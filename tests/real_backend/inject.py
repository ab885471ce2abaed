"""A DDP script with known causes of lost time, in ms, from the environment; prints what each rank measured itself.

DATA, DATA_LATE, FWD, FWD_ALL, BWD (BWD_ALL=1), CLIP, OPT (OPT_LATE=1), EVAL, LOG; LATE_RANK, N (steps), and the model's
DIM, LAYERS, CAP. It knows nothing of this project:
`DATA_LATE=30 coordsim profile -- torchrun --nproc-per-node 2 inject.py`
"""

import itertools
import os
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset


def setting(name: str, default: float = 0.0) -> float:
    return float(os.environ.get(name, default))


def pause(name: str, wanted: bool = True) -> None:
    if wanted and setting(name):
        time.sleep(setting(name) / 1e3)


class Samples(Dataset):
    def __init__(self, rank: int, count: int, width: int) -> None:
        self.rank, self.count, self.width = rank, count, width

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.randn(self.width, generator=torch.Generator().manual_seed(index + 100000 * self.rank))


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    rank, steps, width = dist.get_rank(), int(setting("N", 40)), int(setting("DIM", 256))
    late = rank == int(setting("LATE_RANK", 1))

    def collate(batch: list[torch.Tensor]) -> torch.Tensor:
        pause("DATA")
        pause("DATA_LATE", late)
        return torch.stack(batch)

    net = nn.Sequential(*(nn.Linear(width, width) for _ in range(int(setting("LAYERS", 6)))))
    model = DistributedDataParallel(net, bucket_cap_mb=setting("CAP", 0.25))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    net[2].register_forward_pre_hook(lambda *_: pause("FWD", late))
    net[2].register_forward_pre_hook(lambda *_: pause("FWD_ALL"))
    if setting("BWD"):
        net[2].register_full_backward_hook(lambda *_: pause("BWD", late or bool(setting("BWD_ALL"))))
    optimizer.register_step_pre_hook(lambda *_: pause("OPT", late or not setting("OPT_LATE")))

    spent = dict.fromkeys(("data", "fwd", "bwd", "clip", "opt", "step"), 0.0)
    samples = iter(DataLoader(Samples(rank, 16 * steps, width), batch_size=16, collate_fn=collate))
    last = counted = 0.0
    for step in range(steps):
        moments = [time.perf_counter()]
        batch = next(samples)
        moments.append(time.perf_counter())
        loss = model(batch).square().mean()
        moments.append(time.perf_counter())
        loss.backward()
        moments.append(time.perf_counter())
        pause("CLIP")
        moments.append(time.perf_counter())
        optimizer.step()
        optimizer.zero_grad()
        moments.append(time.perf_counter())
        pause("EVAL", step % 10 == 9)
        pause("LOG", rank == 0)
        if 1 <= step <= 20:
            counted += 1
            parts = [after - before for before, after in itertools.pairwise(moments)]
            for name, took in zip(spent, [*parts, moments[-1] - last], strict=True):
                spent[name] += took
        last = moments[-1]
    told = " ".join(f"{name}={1e3 * took / max(counted, 1):.2f}" for name, took in spent.items())
    print(f"OWN rank={rank} {told}", flush=True)
    dist.destroy_process_group()


main()
