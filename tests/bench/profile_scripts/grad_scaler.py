import torch
import torch.distributed as dist
from common import batches, model, tell
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
rank = dist.get_rank()
net = DistributedDataParallel(model())
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
for step, batch in enumerate(batches(rank)):
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = net(batch).float().square().mean()
    scaler.scale(loss * (float("inf") if step % 3 == 0 else 1.0)).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
tell(net)
dist.destroy_process_group()
