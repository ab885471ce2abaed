"""Inception v3 (Szegedy et al. 2015), with torchvision's parameter names.

At 1,000 classes 284 parameters of 23,834,568 values; with the auxiliary classifier 292 of 27,161,264.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_POOLED = "pool"
_Size = int | tuple[int, int]


class InceptionV3(nn.Module):
    """For a batch x 3 x H x W input, H and W at least 75, nominally 299; the output is batch x ``classes``.

    With ``aux`` the auxiliary classifier is there and its scores come second.
    """

    def __init__(self, classes: int = 1000, *, aux: bool = False) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)
        self.Mixed_5b = InceptionA(192, 32)
        self.Mixed_5c = InceptionA(256, 64)
        self.Mixed_5d = InceptionA(288, 64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, 128)
        self.Mixed_6c = InceptionC(768, 160)
        self.Mixed_6d = InceptionC(768, 160)
        self.Mixed_6e = InceptionC(768, 192)
        self.AuxLogits = Aux(768, classes) if aux else None
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.fc = nn.Linear(2048, classes)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        features = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images)))
        features = F.max_pool2d(features, 3, stride=2)
        features = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(features)), 3, stride=2)
        for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e"):
            features = self.get_submodule(f"Mixed_{name}")(features)
        side = None if self.AuxLogits is None else self.AuxLogits(features)
        for name in ("7a", "7b", "7c"):
            features = self.get_submodule(f"Mixed_{name}")(features)
        scores: Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(features, 1), 1))
        return scores if side is None else (scores, side)


class Conv(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: _Size, stride: int = 1, padding: _Size = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(features)))


class _Branches(nn.Module):
    """Chains of convolutions side by side, concatenated."""

    def __init__(self, *chains: tuple[str, ...]) -> None:
        super().__init__()
        self.chains = chains

    def forward(self, features: Tensor) -> Tensor:
        outputs = []
        for chain in self.chains:
            branch = features
            for name in chain:
                branch = self._link(name, branch)
            outputs.append(branch)
        return torch.cat(outputs, dim=1)

    def _link(self, name: str, features: Tensor) -> Tensor:
        if name == _POOLED:
            return F.avg_pool2d(features, 3, stride=1, padding=1)
        if name == f"max_{_POOLED}":
            return F.max_pool2d(features, 3, stride=2)
        out: Tensor = self.get_submodule(name)(features)
        return out


class InceptionA(_Branches):
    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__(
            ("branch1x1",), ("branch5x5_1", "branch5x5_2"),
            ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"), (_POOLED, "branch_pool"),
        )  # fmt: skip
        self.branch1x1 = Conv(inputs, 64, 1)
        self.branch5x5_1 = Conv(inputs, 48, 1)
        self.branch5x5_2 = Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, padding=1)
        self.branch_pool = Conv(inputs, pooled, 1)


class InceptionB(_Branches):
    def __init__(self, inputs: int) -> None:
        super().__init__(
            ("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"), (f"max_{_POOLED}",)
        )
        self.branch3x3 = Conv(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, stride=2)


class InceptionC(_Branches):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__(
            ("branch1x1",), ("branch7x7_1", "branch7x7_2", "branch7x7_3"),
            tuple(f"branch7x7dbl_{number}" for number in range(1, 6)), (_POOLED, "branch_pool"),
        )  # fmt: skip
        self.branch1x1 = Conv(inputs, 192, 1)
        self.branch7x7_1 = Conv(inputs, width, 1)
        self.branch7x7_2 = Conv(width, width, (1, 7), padding=(0, 3))
        self.branch7x7_3 = Conv(width, 192, (7, 1), padding=(3, 0))
        self.branch7x7dbl_1 = Conv(inputs, width, 1)
        self.branch7x7dbl_2 = Conv(width, width, (7, 1), padding=(3, 0))
        self.branch7x7dbl_3 = Conv(width, width, (1, 7), padding=(0, 3))
        self.branch7x7dbl_4 = Conv(width, width, (7, 1), padding=(3, 0))
        self.branch7x7dbl_5 = Conv(width, 192, (1, 7), padding=(0, 3))
        self.branch_pool = Conv(inputs, 192, 1)


class InceptionD(_Branches):
    def __init__(self, inputs: int) -> None:
        super().__init__(
            ("branch3x3_1", "branch3x3_2"),
            ("branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4"), (f"max_{_POOLED}",),
        )  # fmt: skip
        self.branch3x3_1 = Conv(inputs, 192, 1)
        self.branch3x3_2 = Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Conv(inputs, 192, 1)
        self.branch7x7x3_2 = Conv(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = Conv(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = Conv(192, 192, 3, stride=2)


class InceptionE(nn.Module):
    """Its 3x3 branches fork at their ends."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 320, 1)
        self.branch3x3_1 = Conv(inputs, 384, 1)
        self.branch3x3_2a = Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = Conv(inputs, 448, 1)
        self.branch3x3dbl_2 = Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = Conv(inputs, 192, 1)

    def forward(self, features: Tensor) -> Tensor:
        single = self.branch3x3_1(features)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(features))
        pooled = F.avg_pool2d(features, 3, stride=1, padding=1)
        return torch.cat(
            [
                self.branch1x1(features), self.branch3x3_2a(single), self.branch3x3_2b(single),
                self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(pooled),
            ],
            dim=1,
        )  # fmt: skip


class Aux(nn.Module):
    """The auxiliary classifier, on the 17 x 17 features."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.conv0 = Conv(inputs, 128, 1)
        self.conv1 = Conv(128, 768, 5)
        self.fc = nn.Linear(768, classes)

    def forward(self, features: Tensor) -> Tensor:
        reduced = self.conv1(self.conv0(F.avg_pool2d(features, 5, stride=3)))
        scores: Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(reduced, 1), 1))
        return scores
