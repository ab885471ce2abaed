"""ResNet v1.5 (He et al. 2015, stride in the 3x3 convolution), with torchvision's parameter names.

At 1,000 classes ResNet-50 has 161 parameters of 25,557,032 values, ResNet-101 314 of 44,549,160.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EXPANSION = 4


class ResNet(nn.Module):
    """Bottleneck blocks, ``blocks`` of them in each of four stages, for a batch x 3 x H x W input.

    H and W are nominally 224; the output is batch x ``classes``. ``thin`` divides every width, for runs in which
    only the order of gradients counts.
    """

    def __init__(self, blocks: Sequence[int], classes: int = 1000, *, thin: int = 1) -> None:
        super().__init__()
        self.stages = len(blocks)
        channels = narrowest = 64 // thin
        self.conv1 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        for stage, depth in enumerate(blocks):
            width = narrowest * 2**stage
            bottlenecks: list[Bottleneck] = []
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                bottlenecks.append(Bottleneck(channels, width, stride))
                channels = width * EXPANSION
            self.add_module(f"layer{stage + 1}", nn.Sequential(*bottlenecks))
        self.fc = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, stride=2, padding=1)
        for stage in range(self.stages):
            features = self.get_submodule(f"layer{stage + 1}")(features)
        scores: Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(features, 1), 1))
        return scores


class ResNet50(ResNet):
    """161 parameters, 25,557,032 values at 1,000 classes."""

    def __init__(self, classes: int = 1000, *, thin: int = 1) -> None:
        super().__init__((3, 4, 6, 3), classes, thin=thin)


class ResNet101(ResNet):
    """314 parameters, 44,549,160 values at 1,000 classes."""

    def __init__(self, classes: int = 1000, *, thin: int = 1) -> None:
        super().__init__((3, 4, 23, 3), classes, thin=thin)


class Bottleneck(nn.Module):
    """1x1 down to ``width`` channels, 3x3 with the stride, 1x1 up to four times that; plus the shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != outputs:
            projection = nn.Conv2d(channels, outputs, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, features: Tensor) -> Tensor:
        branch = F.relu(self.bn1(self.conv1(features)))
        branch = F.relu(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        shortcut = features if self.downsample is None else self.downsample(features)
        return F.relu(branch + shortcut)
