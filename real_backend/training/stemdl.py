"""STEMDL: reconstructs the potential of a crystal from the diffraction patterns of a scan, with its FC-DenseNet.

Laanait et al. 2019 reconstruct the projected density of a crystal from 4D-STEM data; here the data come from
:mod:`real_backend.training.diffraction`. The pattern's pixels are channels, the probe's positions the image.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from real_backend.training.diffraction import FULL, Microscope, sample
from real_backend.training.task import Batch, Draw, Task
from real_backend.zoo import StemdlNet

BLUR = 0.3
"""Blur of the target potential, Angstrom: little is left beyond the highest frequency of the scan."""
UNIT_V = 150.0
"""Unit of the network's output, V Angstrom: about the standard deviation of the targets."""


class Stemdl(Task):
    """Small: 64 channels of 32 x 32, growth 16, kernels 3 wide. Full: 1,024 of 512 x 512, 256 and 5, batch 1.

    Full is docs/published.md 2. It keeps at most 16 GB for the backward pass (half in bfloat16; counted on the meta
    device, not measured), 4 GB for weights, gradients and Adam, and 5 GB of held-out samples and the batch.
    """

    name = "stemdl"
    title = "STEMDL"
    error_name = "RMS error of the projected potential, V Å"
    trivial_name = "mean potential everywhere"

    def __init__(self, size: str = "small") -> None:
        small = size == "small"
        super().__init__(size, batch=8 if small else 1, steps=200 if small else 100)
        self.microscope = Microscope() if small else FULL
        self.growth, self.kernel = (16, 3) if small else (256, 5)

    def model(self) -> nn.Module:
        return StemdlNet(growth=self.growth, kernel=self.kernel, channels=self.microscope.channels)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), lr=1.5e-3 if self.size == "small" else 2e-4)

    def samples(self, draw: Draw, count: int, device: torch.device) -> Batch:
        """Return inputs [sample, channel, y, x] and targets [sample, 1, y, x] in units of UNIT_V.

        Inputs are square roots of counts, divided by that of the mean count of a channel. The root makes counting noise
        equal in bright and dark pixels (Anscombe 1948), and is proportional to the amplitude of a wave.
        """
        draws, noise = draw.generator(), draw.noise(device)
        made = [sample(self.microscope, draws, noise, BLUR) for _ in range(count)]
        inputs = torch.stack([(shares * self.microscope.channels).sqrt() for shares, _ in made])
        return Batch(inputs, torch.stack([potential_v for _, potential_v in made]) / UNIT_V)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs.float(), targets)

    def misses(self, outputs: Tensor, targets: Tensor) -> tuple[float, int]:
        return float((outputs.float() - targets).square().sum()), targets.numel()

    def error(self, missed: float, count: int) -> float:
        """Return the error in V Angstrom."""
        return UNIT_V * sqrt(missed / count)

    def trivial_error(self, targets: Tensor) -> float:
        """Return the error of the targets' mean."""
        return UNIT_V * float(targets.std(correction=0))
