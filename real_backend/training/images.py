"""ResNet-50 on synthetic images: noisy gratings, whose class is their angle and period.

Nothing is downloaded, and the task has to be learned: colours and phase contain no information on the class, and no
single pixel does.
"""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from real_backend.training.task import Batch, Draw, Task
from real_backend.zoo import ResNet50

COARSEST, FINEST = 16.0, 4.0
"""Pixels in a period."""
NOISE = 0.5
"""Standard deviation of the noise; a grating's amplitude in each colour is from 0.5 to 1."""


class Images(Task):
    """Small: 8 classes (4 angles, 2 periods) of 64 x 64, widths divided by 8. Full: 1,000 (40, 25) of 224 x 224.

    Full keeps at most 5.5 GB for the backward pass (counted on the meta device, not measured).
    """

    name = "resnet50"
    title = "ResNet-50"
    error_name = "share of images whose class is missed"
    trivial_name = "most frequent class"

    def __init__(self, size: str = "small") -> None:
        small = size == "small"
        super().__init__(size, batch=32 if small else 64, steps=150 if small else 100)
        self.pixels, self.thin = (64, 8) if small else (224, 1)
        self.turns, self.periods = (4, 2) if small else (40, 25)

    @property
    def classes(self) -> int:
        return self.turns * self.periods

    def model(self) -> nn.Module:
        return ResNet50(self.classes, thin=self.thin)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)

    def samples(self, draw: Draw, count: int, device: torch.device) -> Batch:
        """Return inputs [sample, colour, y, x] and targets [sample], the number of the class."""
        draws, noise = draw.generator(), draw.noise(device)
        classes = torch.randint(self.classes, (count,), generator=draws)
        phase = 2 * pi * torch.rand(count, generator=draws)
        signs = 2 * torch.randint(2, (count, 3), generator=draws) - 1
        colours = (signs * (1 + torch.rand(count, 3, generator=draws)) / 2).to(device)
        angle = pi / self.turns * (classes // self.periods)
        fineness = (classes % self.periods) / (self.periods - 1)
        frequency = 2 * pi / COARSEST * (COARSEST / FINEST) ** fineness
        along_y, along_x, phase = (
            part.to(device)[:, None, None] for part in (frequency * angle.sin(), frequency * angle.cos(), phase)
        )
        places = torch.arange(self.pixels, device=device)
        gratings = torch.cos(along_y * places[:, None] + along_x * places + phase)
        images = colours[:, :, None, None] * gratings[:, None]
        images = images + NOISE * torch.randn(images.shape, generator=noise, device=device)
        return Batch(images, classes.to(device))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.float(), targets)

    def misses(self, outputs: Tensor, targets: Tensor) -> tuple[float, int]:
        return float((outputs.argmax(dim=1) != targets).sum()), len(targets)

    def trivial_error(self, targets: Tensor) -> float:
        """Return the error of the most frequent class."""
        return 1 - int(targets.bincount().max()) / len(targets)
