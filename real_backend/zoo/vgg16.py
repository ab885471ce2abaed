"""VGG-16 (Simonyan and Zisserman 2014, configuration D), with torchvision's parameter names.

32 parameters, 138,357,544 values at 1,000 classes; three quarters of them in ``classifier.0``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and 3x3 convolutions between one pooling and the next."""


class Vgg16(nn.Module):
    """For a batch x 3 x H x W input, H and W at least 32, nominally 224; the output is batch x ``classes``.

    ``thin`` divides every width, for runs in which only the order of gradients counts.
    """

    def __init__(self, classes: int = 1000, *, thin: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width, depth in BLOCKS:
            for _ in range(depth):
                layers += [nn.Conv2d(channels, width // thin, 3, padding=1), nn.ReLU()]
                channels = width // thin
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        hidden = 4096 // thin
        self.classifier = nn.Sequential(
            nn.Linear(channels * 49, hidden), nn.ReLU(), nn.Dropout(),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(),
            nn.Linear(hidden, classes),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        features = F.adaptive_avg_pool2d(self.features(images), 7)
        scores: Tensor = self.classifier(torch.flatten(features, 1))
        return scores
