"""Networks written here from their published shapes, to be recorded and trained without torchvision."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from real_backend.zoo.bert import BertLarge
from real_backend.zoo.gpt2 import Gpt2
from real_backend.zoo.inception_v3 import InceptionV3
from real_backend.zoo.llama import Llama3
from real_backend.zoo.resnet import ResNet50, ResNet101
from real_backend.zoo.stemdl import StemdlNet
from real_backend.zoo.vgg16 import Vgg16

MODELS: dict[str, Callable[..., nn.Module]] = {
    "bert_large": BertLarge,
    "gpt2": Gpt2,
    "inception_v3": InceptionV3,
    "llama3_8b": Llama3,
    "resnet50": ResNet50,
    "resnet101": ResNet101,
    "stemdl": StemdlNet,
    "vgg16": Vgg16,
}

__all__ = [
    "MODELS", "BertLarge", "Gpt2", "InceptionV3", "Llama3", "ResNet50", "ResNet101", "StemdlNet", "Vgg16",
]  # fmt: skip
