"""Networks written here from their published shapes, to be recorded and trained without torchvision."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from real_backend.zoo.resnet50 import ResNet50
from real_backend.zoo.stemdl import StemdlNet

MODELS: dict[str, Callable[..., nn.Module]] = {"resnet50": ResNet50, "stemdl": StemdlNet}

__all__ = ["MODELS", "ResNet50", "StemdlNet"]
