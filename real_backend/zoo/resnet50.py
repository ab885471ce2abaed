"""ResNet-50 v1.5 (He et al. 2015, stride in the 3x3 convolution), with torchvision's parameter names.

161 parameters, 25,557,032 values at 1,000 classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS = (3, 4, 6, 3)
EXPANSION = 4


class ResNet50(nn.Module):
    """For a batch x 3 x H x W input, nominally 224 x 224; the output is batch x ``classes``."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for stage, blocks in enumerate(BLOCKS):
            width = 64 * 2**stage
            bottlenecks: list[Bottleneck] = []
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                bottlenecks.append(Bottleneck(channels, width, stride))
                channels = width * EXPANSION
            self.add_module(f"layer{stage + 1}", nn.Sequential(*bottlenecks))
        self.fc = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, stride=2, padding=1)
        for stage in range(len(BLOCKS)):
            features = self.get_submodule(f"layer{stage + 1}")(features)
        scores: Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(features, 1), 1))
        return scores


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
