import torch
import torch.distributed as dist
from common import batches, model, tell
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

dist.init_process_group("gloo")
policy = ModuleWrapPolicy({nn.Linear})
net = FullyShardedDataParallel(model(), auto_wrap_policy=policy, device_id=torch.device("cpu"), use_orig_params=True)
optimizer = torch.optim.Adam(net.parameters())
for batch in batches(dist.get_rank()):
    optimizer.zero_grad()
    net(batch).square().mean().backward()
    net.clip_grad_norm_(1.0)
    optimizer.step()
tell(net)  # each rank its own part
dist.destroy_process_group()
