"""Hugging Face Accelerate: prepare, accumulate, clip."""

import torch
from accelerate import Accelerator
from common import model, tell
from torch.utils.data import DataLoader, TensorDataset

accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
data = TensorDataset(torch.randn(26 * 2 * 8 * 2, 32, generator=torch.Generator().manual_seed(0)))
net = model()
optimizer = torch.optim.AdamW(net.parameters())
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (1 + step))
net, optimizer, loader, scheduler = accelerator.prepare(net, optimizer, DataLoader(data, batch_size=8), scheduler)
for (batch,) in loader:
    with accelerator.accumulate(net):
        loss = net(batch).square().mean()
        accelerator.backward(loss)
        if accelerator.sync_gradients:
            accelerator.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
tell(net)
accelerator.end_training()
