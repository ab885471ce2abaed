"""Small real training for real runs: the tasks (STEMDL, ResNet-50, BERT), their samples, and the loop."""

from __future__ import annotations

from collections.abc import Callable

from real_backend.training.images import Images
from real_backend.training.loop import Step, Training, Wrap, WrapModel
from real_backend.training.stemdl import Stemdl
from real_backend.training.task import SIZES, Batch, Draw, Task
from real_backend.training.words import Words

TASKS: dict[str, Callable[[str], Task]] = {"bert": Words, "resnet50": Images, "stemdl": Stemdl}

__all__ = [
    "SIZES", "TASKS", "Batch", "Draw", "Images", "Stemdl", "Step", "Task", "Training", "Words", "Wrap", "WrapModel",
]  # fmt: skip
