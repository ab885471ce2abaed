"""Parts of timm, put together as in its train.py: loader, model, optimizer, loss scaler with clipping, EMA, scheduler.

torchvision is imported by timm and need not fit the torch at hand: two of its operators are declared so that it loads.
"""

import torch
import torch.distributed as dist
from common import tell
from PIL import Image
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

if not hasattr(torch.ops.torchvision, "nms"):
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm
from timm.data import create_loader
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, ModelEmaV2, dispatch_clip_grad, distribute_bn


class Images(Dataset):
    """Pictures of one colour each, whose class is that colour's."""

    transform = None

    def __len__(self):
        return 112

    def __getitem__(self, index):
        image = Image.new("RGB", (40, 40), (index % 10 * 25, 128, 255 - index % 10 * 25))
        return self.transform(image) if self.transform else image, index % 10


if __name__ == "__main__":
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    net = timm.create_model("resnet10t", num_classes=10, drop_rate=0.1)
    ema = ModelEmaV2(net, decay=0.9)
    optimizer = create_optimizer_v2(net, opt="adamw", lr=1e-3, weight_decay=0.05)
    model = DistributedDataParallel(net)
    loader = create_loader(
        Images(), input_size=(3, 32, 32), batch_size=8, is_training=True, use_prefetcher=False, num_workers=0,
        distributed=True, device=torch.device("cpu"),
    )  # fmt: skip
    loss_of = torch.nn.CrossEntropyLoss()
    scheduler, epochs = create_scheduler_v2(optimizer, sched="cosine", num_epochs=4)
    losses = AverageMeter()
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        model.train()
        for images, target in loader:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=False):
                loss = loss_of(model(images), target)
            loss.backward()
            dispatch_clip_grad(model.parameters(), value=1.0)
            optimizer.step()
            optimizer.zero_grad()
            ema.update(net)
            losses.update(loss.item(), images.size(0))
        distribute_bn(model, dist.get_world_size(), reduce=True)
        model.eval()
        with torch.no_grad():
            for images, target in loader:
                loss_of(ema.module(images), target)
                break
        scheduler.step(epoch + 1)
    tell(net, rank=rank)
    dist.destroy_process_group()
