"""What is trained: a model, samples made on the fly, a loss, and an error that a person can read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

SIZES = ("small", "full")


@dataclass(frozen=True, slots=True)
class Draw:
    """Which samples: those of one rank and step, or those held out, which are the same on every rank.

    All random numbers of a batch follow from these four; a batch is the same on every CPU of one kind. On a GPU the
    specimen, the class or the words are the same, and the noise is its own.
    """

    seed: int
    rank: int
    step: int
    held_out: bool = False

    def generator(self) -> torch.Generator:
        """On the CPU, for what a sample is."""
        return self._seeded(torch.device("cpu"), 0)

    def noise(self, device: torch.device) -> torch.Generator:
        """For the noise on it."""
        return self._seeded(device, 1)

    def _seeded(self, device: torch.device, purpose: int) -> torch.Generator:
        words = (self.seed, int(self.held_out), self.rank, self.step, purpose)
        state = int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])
        return torch.Generator(device).manual_seed(state >> 1)  # a generator takes 63 bits


@dataclass(frozen=True, slots=True)
class Batch:
    """``inputs`` for the model and what it should make of them; the first axis of both is the sample."""

    inputs: Tensor
    targets: Tensor


class Task(ABC):
    """One thing to learn, at one size. Its methods keep no state: every rank may call them alike."""

    name: ClassVar[str]
    title: ClassVar[str]
    error_name: ClassVar[str]
    """What :meth:`error` is, with its unit."""
    trivial_name: ClassVar[str]
    """The answer of :meth:`trivial_error`."""

    def __init__(self, size: str, *, batch: int, steps: int) -> None:
        """``size`` is small (a CPU) or full (a GPU of 80 GB); ``batch`` and ``steps`` are its defaults."""
        self.size, self.batch, self.steps = size, batch, steps

    @property
    def held_out_batches(self) -> int:
        return 4

    @abstractmethod
    def model(self) -> nn.Module:
        """With weights as torch draws them now."""

    @abstractmethod
    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer: ...

    @abstractmethod
    def samples(self, draw: Draw, count: int, device: torch.device) -> Batch: ...

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor: ...

    @abstractmethod
    def misses(self, outputs: Tensor, targets: Tensor) -> tuple[float, int]:
        """What :meth:`error` is made of, summed over a batch, and over how many things it was summed."""

    def error(self, missed: float, count: int) -> float:
        return missed / count

    @abstractmethod
    def trivial_error(self, targets: Tensor) -> float:
        """Error on ``targets`` of the best answer that looks at no input: the same everywhere."""

    def held_out(self, seed: int, count: int, device: torch.device) -> Iterable[Batch]:
        """Samples that no rank trains on, ``count`` a batch."""
        for number in range(self.held_out_batches):
            yield self.samples(Draw(seed, 0, number, held_out=True), count, device)
