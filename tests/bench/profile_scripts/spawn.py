import sys
import tempfile

import torch
import torch.distributed as dist
from common import batches, model, tell
from torch.nn.parallel import DistributedDataParallel


def main(rank, meeting):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    net = DistributedDataParallel(model())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for batch in batches(rank):
        optimizer.zero_grad()
        net(batch).square().mean().backward()
        optimizer.step()
    tell(net, rank=rank)
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.spawn(main, (tempfile.mktemp(),), 2)
    sys.exit(0)
