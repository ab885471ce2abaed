import torch
import torch.distributed as dist
from common import batches, model, tell
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
rank = dist.get_rank()
net = DistributedDataParallel(model())
optimizer = torch.optim.LBFGS(net.parameters(), lr=0.5, max_iter=4, tolerance_grad=0, tolerance_change=0)
for batch in batches(rank):

    def closure(batch=batch):
        optimizer.zero_grad()
        loss = net(batch).sub(1).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
tell(net)
dist.destroy_process_group()
