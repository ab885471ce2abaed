"""A loop as in PyTorch's imagenet example: a convolutional net with batch norm, workers, evaluation, a checkpoint."""

import torch
import torch.distributed as dist
from common import tell
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

if __name__ == "__main__":
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    net = DistributedDataParallel(nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 10),
    ))  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(256, 3, 16, 16, generator=generator)
    data = TensorDataset(images, torch.randint(10, (256,), generator=generator))
    sampler = DistributedSampler(data)
    loader = DataLoader(data, batch_size=16, sampler=sampler, num_workers=1)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(4):
        sampler.set_epoch(epoch)
        net.train()
        for images, target in loader:
            loss = criterion(net(images), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            for images, target in loader:
                criterion(net(images), target)
        scheduler.step()
        if rank == 0:
            torch.save({"state": net.state_dict(), "optimizer": optimizer.state_dict()}, "checkpoint.pt")
    tell(net)
    dist.destroy_process_group()
