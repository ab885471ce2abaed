"""Write a workload's gradients, in the order in which a real backward pass delivers them.

    python -m real_backend.record_workload resnet50 [--out FILE.csv]

The order is observed: one backward pass on the CPU, with small inputs and, where the network is too large for
that, thin layers (same depth, same names), and a ``post_accumulate_grad`` hook on each parameter (Horovod's
unit). Shapes and FLOPs are those of the real network on one sample of nominal size, without arithmetic (torch's
meta device). The time between two gradients is not measured: the backward time of the reference device is
divided by FLOPs, by the rule of :mod:`coordsim.scenario.generators.backward`. The output is the same bytes each
time.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TextIO

import torch
from torch import nn

from coordsim.record.files import whole_file
from coordsim.scenario import generators
from coordsim.scenario.generators.backward import V100_HALF, Balance, ModuleWork, ready_times_ns
from real_backend.zoo import MODELS
from real_backend.zoo.parts import AttentionCore, BareBias

CATALOG = Path(generators.__file__).parents[1] / "catalog" / "workloads"
COLUMNS = ("name", "shape", "dtype", "layer", "registration", "ready")


P100_FP32 = Balance(5_600_000_000_000, 732_000_000_000, 4)
"""A P100 in FP32: the rate that ResNet-101 sustains at Horovod's published throughput, and the board's memory
(NVIDIA)."""
H100_BF16 = Balance(400_000_000_000_000, 3_350_000_000_000, 2)
"""An H100 SXM5 in BF16: about the rate that Llama 3 8B sustains at torchtitan's published throughput, and its
memory."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one model is recorded."""

    nominal: tuple[int, ...]
    """Input of one sample whose FLOPs count: (1, channels, height, width), or (1, tokens)."""
    small: tuple[int, ...]
    """Input with which the backward pass is run."""
    backward_ns: int
    """Backward pass of one batch on the reference device; its source is in the workload's TOML."""
    balance: Balance = V100_HALF
    """Balance of the reference device."""
    dtype: str = "float32"
    """Element type of the gradients when they are reduced."""
    thin: dict[str, int] = field(default_factory=dict)
    """Arguments that make the network small for the backward pass, with the same depth and names."""


IMAGE, SMALL_IMAGE = (1, 3, 224, 224), (2, 3, 64, 64)
RECIPES = {
    "resnet50": Recipe(IMAGE, SMALL_IMAGE, backward_ns=60_000_000, thin={"thin": 16}),
    "resnet101": Recipe(IMAGE, SMALL_IMAGE, backward_ns=355_500_000, balance=P100_FP32, thin={"thin": 16}),
    "inception_v3": Recipe((1, 3, 299, 299), (2, 3, 75, 75), backward_ns=316_200_000, balance=P100_FP32),
    "vgg16": Recipe(IMAGE, (2, 3, 32, 32), backward_ns=324_400_000, balance=P100_FP32, thin={"thin": 32}),
    "bert_large": Recipe(
        (1, 128), (2, 8), backward_ns=73_050_000, dtype="float16",
        thin={"hidden": 16, "heads": 2, "vocabulary": 30},
    ),
    "gpt2": Recipe(
        (1, 1024), (2, 8), backward_ns=93_360_000, balance=H100_BF16, dtype="bfloat16",
        thin={"hidden": 16, "heads": 2, "vocabulary": 30},
    ),
    "llama3_8b": Recipe(
        (1, 8192), (2, 8), backward_ns=1_631_600_000, balance=H100_BF16, dtype="bfloat16",
        thin={"hidden": 32, "heads": 4, "key_heads": 1, "wide": 48, "vocabulary": 30},
    ),
}  # fmt: skip


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
    """Return the parameters' names in the order in which one real backward pass accumulates their gradients."""
    order: list[str] = []
    handles = [
        parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
            lambda _, name=name: order.append(name)
        )
        for name, parameter in model.named_parameters()
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # Tensors are small, so more threads would only wait for each other.
    try:
        model.train()
        model(torch.zeros(input_shape)).sum().backward()
    finally:
        torch.set_num_threads(threads)
    for handle in handles:
        handle.remove()
    return order


def module_work(model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, ModuleWork]:
    """Return the cost of one forward pass in each module that owns gradients.

    FLOPs without a gradient of their own (attention, a tied layer) are added to the module that ran before. The model's
    parameters should be on the meta device, so that nothing is computed, whatever the size. Raises TypeError for a kind
    of module that no rule counts.
    """
    work: dict[str, ModuleWork] = {}
    owners = {name.rpartition(".")[0] for name, _ in model.named_parameters()}

    def count(name: str, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        counted = _work(module, inputs, output)
        if name in owners:
            work[name] = counted
        else:
            before = next(reversed(work))
            flops = work[before].forward_flops + counted.forward_flops
            work[before] = replace(work[before], forward_flops=flops)

    working = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, AttentionCore) or next(module.parameters(recurse=False), None) is not None
    ]
    handles = [module.register_forward_hook(partial(count, name)) for name, module in working]
    with torch.no_grad():
        model(torch.zeros(input_shape, device=next(model.parameters()).device))
    for handle in handles:
        handle.remove()
    return work


def _work(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> ModuleWork:
    """A weight is used once per pixel or token of the output; of a transposed convolution, of the input."""
    if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm, nn.RMSNorm, nn.Embedding)):
        return ModuleWork(0, output.numel(), norm=True)
    if isinstance(module, AttentionCore):
        return ModuleWork(module.forward_flops(inputs[0], inputs[1]), output.numel())
    if isinstance(module, BareBias):
        return ModuleWork(0, output.numel())
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        pixels = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        uses = pixels.numel() // pixels.shape[-1 if isinstance(module, nn.Linear) else 1]
        return ModuleWork(2 * module.weight.numel() * uses, output.numel())
    raise TypeError(f"no rule counts the FLOPs of a {type(module).__name__}")


def record(name: str) -> list[Row]:
    """Return the gradients of model ``name``, in ready order."""
    recipe = RECIPES[name]
    order = ready_order(MODELS[name](**recipe.thin), recipe.small)
    with torch.device("meta"):
        shapes_only = MODELS[name]()
    work = module_work(shapes_only, recipe.nominal)
    owners = [parameter.rpartition(".")[0] for parameter in order]
    times_ns = ready_times_ns(owners, work, recipe.backward_ns, recipe.balance)
    parameters = dict(shapes_only.named_parameters())
    registration = {parameter: position for position, parameter in enumerate(parameters)}
    return [
        Row(
            name=parameter,
            shape=tuple(parameters[parameter].shape),
            dtype=recipe.dtype,
            layer=owner,
            registration=registration[parameter],
            ready_ns=time_ns,
        )
        for parameter, owner, time_ns in zip(order, owners, times_ns, strict=True)
    ]


def write(rows: list[Row], file: TextIO) -> None:
    """Write the table as CSV: a shape as ``64x3x7x7``, ``ready`` in ns after the start of backward."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        shape = "x".join(map(str, row.shape))
        writer.writerow((row.name, shape, row.dtype, row.layer, row.registration, row.ready_ns))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Record the order in which a model's gradients get ready.")
    parser.add_argument("model", choices=sorted(RECIPES))
    parser.add_argument("--out", type=Path, help="default: the catalog's MODEL.tensors.csv")
    options = parser.parse_args(arguments)
    path: Path = options.out or CATALOG / f"{options.model}.tensors.csv"
    rows = record(options.model)
    with whole_file(path) as fresh, fresh.open("w", encoding="utf-8", newline="") as file:
        write(rows, file)
    values = sum(prod(row.shape) for row in rows)
    print(f"{path}: {len(rows)} gradients, {values:,} values", file=sys.stderr)


if __name__ == "__main__":
    main()
