import torch
import torch.distributed as dist
from common import batches, model, tell
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (dist.get_world_size(),))
net = model()
for each in net:
    fully_shard(each, mesh=mesh)
fully_shard(net, mesh=mesh)
optimizer = torch.optim.Adam(net.parameters())
for batch in batches(dist.get_rank()):
    optimizer.zero_grad()
    net(batch).square().mean().backward()
    optimizer.step()
tell(net)
dist.destroy_process_group()
