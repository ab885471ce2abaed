"""lightning.Fabric under torchrun."""

import lightning
import torch
from common import batches, model, tell

fabric = lightning.Fabric(accelerator="cpu", devices=2, strategy="ddp")
fabric.launch()
net = model()
net, optimizer = fabric.setup(net, torch.optim.SGD(net.parameters(), lr=0.1))
for batch in batches(fabric.global_rank):
    optimizer.zero_grad()
    fabric.backward(net(batch).square().mean())
    fabric.clip_gradients(net, optimizer, max_norm=1.0)
    optimizer.step()
tell(net)
