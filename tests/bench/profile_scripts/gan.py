import torch
import torch.distributed as dist
from common import batches, model, tell
from torch import nn
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
rank = dist.get_rank()
makes = DistributedDataParallel(model())
judges = DistributedDataParallel(nn.Sequential(model(), nn.Linear(32, 1)), broadcast_buffers=False)
of_makes, of_judges = torch.optim.Adam(makes.parameters()), torch.optim.Adam(judges.parameters())
loss_of = nn.BCEWithLogitsLoss()
for real in batches(rank):
    of_judges.zero_grad()
    with torch.no_grad():
        fake = makes(torch.randn(8, 32))
    loss_of(judges(torch.cat([real, fake])), torch.cat([torch.ones(8, 1), torch.zeros(8, 1)])).backward()
    of_judges.step()
    of_makes.zero_grad()
    loss_of(judges(makes(torch.randn(8, 32))), torch.ones(8, 1)).backward()
    of_makes.step()
tell(makes, judges)
dist.destroy_process_group()
