import torch
import torch.distributed as dist
from common import batches, model, tell
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
rank = dist.get_rank()
net = DistributedDataParallel(model())
optimizer = ZeroRedundancyOptimizer(net.parameters(), optimizer_class=torch.optim.Adam, lr=0.01)
for batch in batches(rank):
    optimizer.zero_grad()
    net(batch).square().mean().backward()
    optimizer.step()
tell(net)
dist.destroy_process_group()
