"""Write a workload's gradients, in the order in which a real backward pass delivers them.

    python -m real_backend.record_workload resnet50 [--out FILE.csv]

The order is observed: one backward pass on the CPU, at a reduced image size, with a
``post_accumulate_grad`` hook on each parameter (Horovod's unit). The FLOPs are counted from the real shapes
of a forward pass at the nominal size, without arithmetic (torch's meta device). The time between two
gradients is not measured: the backward time of the reference device is divided by FLOPs, by the rule of
:mod:`coordsim.scenario.generators.backward`. The output is the same bytes each time.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import TextIO

import torch
from torch import nn

from coordsim.scenario import generators
from coordsim.scenario.generators.backward import ModuleWork, ready_times_ns
from real_backend.zoo import MODELS

CATALOG = Path(generators.__file__).parents[1] / "catalog" / "workloads"
COLUMNS = ("name", "shape", "dtype", "layer", "registration", "ready")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one model is recorded."""

    nominal: tuple[int, ...]
    """Input of one sample, (1, channels, height, width), whose FLOPs count."""
    small: tuple[int, ...]
    """Input at which the backward pass is really run."""
    backward_ns: int
    """Backward pass of one batch on the reference device; its source is in the workload's TOML."""


RECIPES = {"resnet50": Recipe(nominal=(1, 3, 224, 224), small=(2, 3, 64, 64), backward_ns=60_000_000)}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; its fields are the columns."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    layer: str
    """The module that owns the parameter."""
    registration: int
    ready_ns: int


def ready_order(model: nn.Module, input_shape: tuple[int, ...]) -> list[str]:
    """Names of the parameters in the order in which one real backward pass accumulates their gradients."""
    order: list[str] = []
    handles = [
        parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
            lambda _, name=name: order.append(name)
        )
        for name, parameter in model.named_parameters()
    ]
    model.train()
    model(torch.zeros(input_shape)).sum().backward()
    for handle in handles:
        handle.remove()
    return order


def module_work(model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, ModuleWork]:
    """What one forward pass costs in each module that owns parameters.

    The model's parameters should be on the meta device: then nothing is computed, whatever the size.
    """
    work: dict[str, ModuleWork] = {}

    def count(name: str, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        work[name] = _work(module, inputs[0], output)

    owners = [
        (name, module)
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    handles = [module.register_forward_hook(partial(count, name)) for name, module in owners]
    with torch.no_grad():
        model(torch.zeros(input_shape, device=next(model.parameters()).device))
    for handle in handles:
        handle.remove()
    return work


def _work(module: nn.Module, features: torch.Tensor, output: torch.Tensor) -> ModuleWork:
    """A weight is used once per pixel of the output; of a transposed convolution, of the input."""
    if isinstance(module, nn.BatchNorm2d):
        return ModuleWork(0, output.numel(), norm=True)
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        pixels = features if isinstance(module, nn.ConvTranspose2d) else output
        uses = pixels.numel() // pixels.shape[-1 if isinstance(module, nn.Linear) else 1]
        return ModuleWork(2 * module.weight.numel() * uses, output.numel())
    raise TypeError(f"no rule counts the FLOPs of a {type(module).__name__}")


def record(name: str) -> list[Row]:
    """The gradients of model ``name``, in ready order."""
    recipe = RECIPES[name]
    order = ready_order(MODELS[name](), recipe.small)
    with torch.device("meta"):
        shapes_only = MODELS[name]()
    work = module_work(shapes_only, recipe.nominal)
    owners = [parameter.rpartition(".")[0] for parameter in order]
    times_ns = ready_times_ns(owners, work, recipe.backward_ns)
    parameters = dict(shapes_only.named_parameters())
    registration = {parameter: position for position, parameter in enumerate(parameters)}
    return [
        Row(
            name=parameter,
            shape=tuple(parameters[parameter].shape),
            dtype=str(parameters[parameter].dtype).removeprefix("torch."),
            layer=owner,
            registration=registration[parameter],
            ready_ns=time_ns,
        )
        for parameter, owner, time_ns in zip(order, owners, times_ns, strict=True)
    ]


def write(rows: list[Row], file: TextIO) -> None:
    """The table as CSV: a shape as ``64x3x7x7``, ``ready`` in ns after the start of backward."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        shape = "x".join(map(str, row.shape))
        writer.writerow((row.name, shape, row.dtype, row.layer, row.registration, row.ready_ns))


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Record the order in which a model's gradients get ready.")
    parser.add_argument("model", choices=sorted(RECIPES))
    parser.add_argument("--out", type=Path, help="default: the catalog's MODEL.tensors.csv")
    options = parser.parse_args(arguments)
    path: Path = options.out or CATALOG / f"{options.model}.tensors.csv"
    rows = record(options.model)
    with path.open("w", encoding="utf-8", newline="") as file:
        write(rows, file)
    values = sum(prod(row.shape) for row in rows)
    print(f"{path}: {len(rows)} gradients, {values:,} values", file=sys.stderr)


if __name__ == "__main__":
    main()
