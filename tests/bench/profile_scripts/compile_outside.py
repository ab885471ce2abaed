import torch
import torch.distributed as dist
from common import batches, model, tell
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
rank = dist.get_rank()
net = DistributedDataParallel(model())
compiled = torch.compile(net)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for batch in batches(rank):
    optimizer.zero_grad()
    compiled(batch).square().mean().backward()
    optimizer.step()
tell(net)
dist.destroy_process_group()
