"""A training task: a model, samples made on the fly, a loss, and an error in a unit that a person can read."""

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
    """Identifies samples: those of one rank and step, or those held out, which are equal on every rank.

    All random numbers of a batch follow from these four; a batch is equal on every CPU of one kind. On a GPU the
    specimen, the class or the words are the same, and the noise is its own.
    """

    seed: int
    rank: int
    step: int
    held_out: bool = False

    def generator(self) -> torch.Generator:
        """Return a generator on the CPU, for the content of a sample."""
        return self._seeded(torch.device("cpu"), 0)

    def noise(self, device: torch.device) -> torch.Generator:
        """Return a generator for the noise of a sample."""
        return self._seeded(device, 1)

    def _seeded(self, device: torch.device, purpose: int) -> torch.Generator:
        words = (self.seed, int(self.held_out), self.rank, self.step, purpose)
        state = int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])
        return torch.Generator(device).manual_seed(state >> 1)  # a generator takes 63 bits


@dataclass(frozen=True, slots=True)
class Batch:
    """``inputs`` for the model and its targets; the first axis of both is the sample."""

    inputs: Tensor
    targets: Tensor


class Task(ABC):
    """One task at one size. Its methods keep no state, so that every rank may call them alike."""

    name: ClassVar[str]
    title: ClassVar[str]
    error_name: ClassVar[str]
    """Name of :meth:`error`, with its unit."""
    trivial_name: ClassVar[str]
    """Name of the answer of :meth:`trivial_error`."""

    def __init__(self, size: str, *, batch: int, steps: int) -> None:
        """``size`` is small (a CPU) or full (a GPU of 80 GB); ``batch`` and ``steps`` are its defaults."""
        self.size, self.batch, self.steps = size, batch, steps

    @property
    def held_out_batches(self) -> int:
        return 4

    @abstractmethod
    def model(self) -> nn.Module:
        """Return a model with weights as torch draws them now."""

    @abstractmethod
    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer: ...

    @abstractmethod
    def samples(self, draw: Draw, count: int, device: torch.device) -> Batch: ...

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor: ...

    @abstractmethod
    def misses(self, outputs: Tensor, targets: Tensor) -> tuple[float, int]:
        """Return the sum over a batch from which :meth:`error` is computed, and the number of its terms."""

    def error(self, missed: float, count: int) -> float:
        return missed / count

    @abstractmethod
    def trivial_error(self, targets: Tensor) -> float:
        """Return the error on ``targets`` of the best answer that uses no input, which is the same for all inputs."""

    def held_out(self, seed: int, count: int, device: torch.device) -> Iterable[Batch]:
        """Return samples that no rank trains on, ``count`` a batch."""
        for number in range(self.held_out_batches):
            yield self.samples(Draw(seed, 0, number, held_out=True), count, device)
