"""The training loop, whatever reduces the gradients: the reduction is wrapped around the optimizer or the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor, nn

from real_backend.training.task import Batch, Draw, Task

Wrap = Callable[[torch.optim.Optimizer, Iterable[tuple[str, nn.Parameter]]], torch.optim.Optimizer]
"""Maps optimizer and named parameters to the optimizer that steps, which is Horovod's way to reduce gradients."""
WrapModel = Callable[[nn.Module], nn.Module]
"""Maps a model to the model that is called, which is DistributedDataParallel's way."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of one rank."""

    number: int
    """Number of the step, from 0."""
    loss: float
    """Loss on this rank's batch, before the step."""
    input_s: float
    """Time to make the batch."""
    compute_s: float
    """Time of forward, backward, the reduction of gradients, and the optimizer."""


def as_is(optimizer: torch.optim.Optimizer, _: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
    """Return the optimizer without a wrapper."""
    return optimizer


def alone(model: nn.Module) -> nn.Module:
    """Return the model without a wrapper."""
    return model


class Training:
    """A model in training on one rank."""

    def __init__(
        self, task: Task, *, seed: int = 0, rank: int = 0, batch: int | None = None,
        device: torch.device | None = None, last: int | None = None,
        wrap: Wrap = as_is, wrap_model: WrapModel = alone,
    ) -> None:  # fmt: skip
        """Make ``batch`` samples a step and rank, by default the task's. All ranks draw equal weights from ``seed``.

        With ``last`` steps in all, the learning rate rises over the first tenth of them and falls to 0 at the end;
        without, it is constant. ``wrap_model`` may also send rank 0's weights to all, and return the model as it is.
        """
        self.task, self.seed, self.rank = task, seed, rank
        self.batch = batch or task.batch
        self.device = device or torch.device("cpu")
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
            torch.manual_seed(seed)
            self.model = task.model().to(self.device)
        self._called = wrap_model(self.model)
        self.optimizer = wrap(task.optimizer(self.model), self.model.named_parameters())
        self._rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self._last = last
        self._done = 0
        self._held_out = [*task.held_out(seed, self.batch, self.device)]

    def steps(self, count: int) -> Iterator[Step]:
        """Train ``count`` more steps, and yield each when it is done."""
        for number in range(self._done, self._done + count):
            start = perf_counter()
            batch = self.task.samples(Draw(self.seed, self.rank, number), self.batch, self.device)
            self._wait()
            begin = perf_counter()
            for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * self._share_of_rate(number)
            self._called.train()
            self.optimizer.zero_grad()
            loss = self.task.loss(self._outputs(self._called, batch.inputs), batch.targets)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self._wait()
            end = perf_counter()
            self._done = number + 1
            yield Step(number, float(loss.detach()), begin - start, end - begin)

    def held_out_error(self) -> float:
        """Return the task's error on samples that no rank trains on, equal each time and on each rank."""
        missed, things = 0.0, 0
        for batch in self._held_out:
            more, count = self.task.misses(self.predict(batch.inputs), batch.targets)
            missed, things = missed + more, things + count
        return self.task.error(missed, things)

    def trivial_error(self) -> float:
        """Return the error on these samples of the best answer that uses no input."""
        return self.task.trivial_error(torch.cat([batch.targets for batch in self._held_out]))

    def held_out(self) -> Batch:
        """Return the first batch of those samples."""
        return self._held_out[0]

    def predict(self, inputs: Tensor) -> Tensor:
        """Return outputs without training."""
        self.model.eval()
        with torch.no_grad():
            return self._outputs(self.model, inputs)

    def _share_of_rate(self, step: int) -> float:
        if self._last is None:
            return 1.0
        rise = max(1, self._last // 10)
        return min((step + 1) / rise, max(0, self._last - step) / max(1, self._last - rise))

    def _outputs(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Return the model's outputs.

        On a GPU matrix products are in bfloat16, as is usual there; weights and gradients are float32.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            outputs: Tensor = model(inputs)
        return outputs

    def _wait(self) -> None:
        """Wait until the GPU has finished, so that times are its own."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
