"""STEMDL's FC-DenseNet (Laanait et al. 2019) in torch, rebuilt from its shape.

The shape is as read (docs/published.md 2) in nlaanait/stemdl (network.py); no code of theirs was used. What it
leaves open was settled by the published totals, which then agree (parameters; training FLOPs of one sample,
3x forward, in brackets what is published):

- growth 64 at 256x512x512: 14.55 (14.5) M; 4.67 (4.7) TFLOP
- growth 128 at 1024x512x512: 59.84 (59.8) M; 21.26 (21.3) TFLOP
- growth 256 at 1024x512x512: 232.8 (232.8) M; 74.7 (74.7) TFLOP

Settled that way: a transition-down keeps the number of channels; a transposed convolution keeps the number
of new features. Not settled by totals, and assumed: ReLU follows each convolution of a dense block and the
norm of a transition-down; pooling takes the maximum; the final convolution sees the whole last concatenation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LAYERS_PER_BLOCK = (2, 2, 3, 4, 3, 2, 2)


class StemdlNet(nn.Module):
    """33 parameters in 15 blocks, for a batch x ``channels`` x H x W input, H and W divisible by 8.

    ``growth`` is the number of channels that each convolution of a dense block adds, ``kernel`` the (odd)
    width of those and of the first one. The output is batch x 1 x H x W.
    """

    def __init__(
        self, *, growth: int = 256, kernel: int = 5, channels: int = 1024,
        layers: Sequence[int] = LAYERS_PER_BLOCK,
    ) -> None:  # fmt: skip
        super().__init__()
        self.pools = len(layers) // 2
        encoder, bottleneck, decoder = layers[: self.pools], layers[self.pools], layers[self.pools + 1 :]
        self.init = nn.Conv2d(channels, growth, kernel, padding=kernel // 2)
        width = growth
        skips: list[int] = []
        for level, depth in enumerate(encoder, start=1):
            self.add_module(f"encoder{level}", DenseBlock(width, depth, growth, kernel))
            width += depth * growth
            skips.append(width)
            self.add_module(f"down{level}", TransitionDown(width))
        self.bottleneck = DenseBlock(width, bottleneck, growth, kernel)
        new = bottleneck * growth
        for level, depth in zip(range(self.pools, 0, -1), decoder, strict=True):
            up = nn.ConvTranspose2d(new, new, 1, stride=2, output_padding=1, bias=False)
            self.add_module(f"up{level}", up)
            width = new + skips.pop()
            self.add_module(f"decoder{level}", DenseBlock(width, depth, growth, kernel))
            new = depth * growth
            width += new
        self.final = nn.Conv2d(width, 1, 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.init(images)
        skips: list[Tensor] = []
        for level in range(1, self.pools + 1):
            features = torch.cat([features, self.get_submodule(f"encoder{level}")(features)], dim=1)
            skips.append(features)
            features = self.get_submodule(f"down{level}")(features)
        new = self.bottleneck(features)
        for level in range(self.pools, 0, -1):
            features = torch.cat([self.get_submodule(f"up{level}")(new), skips.pop()], dim=1)
            new = self.get_submodule(f"decoder{level}")(features)
        output: Tensor = self.final(torch.cat([features, new], dim=1))
        return output


class DenseBlock(nn.Module):
    """``depth`` convolutions to ``growth`` channels, each over the input and all before it.

    Returns the new features alone, batch x (depth * growth) x H x W.
    """

    def __init__(self, channels: int, depth: int, growth: int, kernel: int) -> None:
        super().__init__()
        for layer in range(depth):
            inputs = channels + layer * growth
            conv = nn.Conv2d(inputs, growth, kernel, padding=kernel // 2, bias=False)
            self.add_module(f"conv{layer + 1}", conv)

    def forward(self, features: Tensor) -> Tensor:
        stack = [features]
        for conv in self.children():
            stack.append(F.relu(conv(torch.cat(stack, dim=1))))
        return torch.cat(stack[1:], dim=1)


class TransitionDown(nn.Module):
    """1x1 convolution, batch norm, half the resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, features: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(self.norm(self.conv(features))), 2)
