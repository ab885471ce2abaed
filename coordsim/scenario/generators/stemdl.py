"""STEMDL's FC-DenseNet (Laanait et al. 2019) as a workload, from its shape alone: no torch, integers only.

The network's shape is as read (docs/published.md 2) in nlaanait/stemdl (network.py, generate_json.py);
``real_backend/zoo/stemdl.py`` is the same network in torch, and tests hold the two equal in names, shapes,
layers, FLOPs and ready order. 33 gradients in 15 layer scopes. Against docs/published.md 2:

======  ============  ===============  ==============================
growth  input         parameters       training FLOPs of one sample
======  ============  ===============  ==============================
64      256x512x512   14.55 (14.5) M   4.67 (4.7) T
128     1024x512x512  59.84 (59.8) M   21.26 (21.3) T
256     1024x512x512  232.8 (232.8) M  74.7 (74.7) T
======  ============  ===============  ==============================

In brackets what is published; all agree when rounded alike, but for the first (14.552, 0.4 % more than 14.5).
The growth and kernel of the production run are not in the repository: they are parameters here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from coordsim.errors import InputError, Problem
from coordsim.scenario.generators.backward import MEMORY_Bps, ModuleWork, ready_times_ns
from coordsim.scenario.generators.generated import Generated
from coordsim.scenario.model import Tensor

POOLS = 3
ENCODER_LAYERS = (2, 2, 3)
BOTTLENECK_LAYERS = 4
DECODER_LAYERS = (3, 2, 2)
GRADIENT_DTYPES = ("float16", "bfloat16", "float32")
SAMPLE_BYTES_PER_VALUE = 2
"""Samples are FP16 on disk whatever the gradients are (docs/published.md 2: 537 MB a sample)."""
OPTIMIZER_BYTES = 20
"""Memory traffic per parameter of an SGD step with momentum and FP32 master weights: read gradient (2),
weight (4) and momentum (4); write weight (4), momentum (4) and FP16 weight (2). DERIVED."""


@dataclass(frozen=True, slots=True)
class Module:
    """One convolution or norm: its parameters, by name, in registration order, and its work."""

    name: str
    shapes: dict[str, tuple[int, ...]]
    work: ModuleWork

    @property
    def layer(self) -> str:
        """The block it belongs to, STEMDL's layer scope."""
        return self.name.partition(".")[0]


def build(
    *,
    device_flops: int,
    growth: int = 256,
    kernel: int = 5,
    input: tuple[int, int, int] = (1024, 512, 512),
    batch: int = 1,
    dtype: str = "float16",
) -> Generated:
    """Build the workload for a GPU that sustains ``device_flops`` FLOP/s on it.

    ``input`` is (channels, height, width), ``batch`` is samples per rank and step, ``dtype`` is that of the
    gradients. Forward takes its FLOPs at ``device_flops``, backward twice as long; the optimizer is bound by
    memory. Raises :class:`~coordsim.errors.InputError` that names every bad parameter.
    """
    _check(device_flops, growth, kernel, input, batch, dtype)
    modules = tuple(network(growth, kernel, input))
    parameters = sum(prod(shape) for module in modules for shape in module.shapes.values())
    forward_flops = sum(module.work.forward_flops for module in modules)
    return Generated(
        tensors=_tensors(modules, dtype, _duration_ns(2 * batch * forward_flops, device_flops)),
        forward_ns=_duration_ns(batch * forward_flops, device_flops),
        optimizer_ns=_duration_ns(parameters * OPTIMIZER_BYTES, MEMORY_Bps),
        batch=batch,
        flops_per_sample=3 * forward_flops,
        sample_bytes=prod(input) * SAMPLE_BYTES_PER_VALUE,
    )


def network(growth: int, kernel: int, input: Sequence[int]) -> Iterator[Module]:
    """The network's modules in forward order; the work is that of one sample."""
    channels, height, width = input
    pixels = height * width
    yield _convolution("init", channels, growth, kernel, pixels, bias=True)
    channels = growth
    skips = []
    for level, layers in enumerate(ENCODER_LAYERS, start=1):
        yield from _dense_block(f"encoder{level}", layers, channels, growth, kernel, pixels)
        channels += layers * growth
        skips.append(channels)
        yield _convolution(f"down{level}.conv", channels, channels, 1, pixels)
        yield _norm(f"down{level}.norm", channels, pixels)
        pixels //= 4
    yield from _dense_block("bottleneck", BOTTLENECK_LAYERS, channels, growth, kernel, pixels)
    new_channels = BOTTLENECK_LAYERS * growth
    for level, layers in zip(range(POOLS, 0, -1), DECODER_LAYERS, strict=True):
        yield _transposed_convolution(f"up{level}", new_channels, pixels)
        pixels *= 4
        channels = new_channels + skips.pop()
        yield from _dense_block(f"decoder{level}", layers, channels, growth, kernel, pixels)
        new_channels = layers * growth
        channels += new_channels
    yield _convolution("final", channels, 1, 1, pixels)


def _dense_block(
    name: str, layers: int, channels: int, growth: int, kernel: int, pixels: int
) -> Iterator[Module]:
    for layer in range(layers):
        yield _convolution(f"{name}.conv{layer + 1}", channels + layer * growth, growth, kernel, pixels)


def _convolution(
    name: str, inputs: int, outputs: int, kernel: int, pixels: int, *, bias: bool = False
) -> Module:
    shapes: dict[str, tuple[int, ...]] = {"weight": (outputs, inputs, kernel, kernel)}
    flops = 2 * prod(shapes["weight"]) * pixels
    if bias:
        shapes["bias"] = (outputs,)
    return Module(name, shapes, ModuleWork(flops, outputs * pixels))


def _transposed_convolution(name: str, channels: int, pixels: int) -> Module:
    """1x1 with stride 2: one multiply-add per weight and *input* pixel; three of four outputs stay zero."""
    work = ModuleWork(2 * channels * channels * pixels, channels * pixels * 4)
    return Module(name, {"weight": (channels, channels, 1, 1)}, work)


def _norm(name: str, channels: int, pixels: int) -> Module:
    shapes: dict[str, tuple[int, ...]] = {"weight": (channels,), "bias": (channels,)}
    return Module(name, shapes, ModuleWork(0, channels * pixels, norm=True))


def _tensors(modules: Sequence[Module], dtype: str, backward_ns: int) -> tuple[Tensor, ...]:
    """Gradients in ready order: modules in reverse, and inside a module as autograd delivers them."""
    named = [(module, name) for module in modules for name in module.shapes]
    registration = {(module.name, name): position for position, (module, name) in enumerate(named)}
    ready_order = [(module, name) for module in reversed(modules) for name in module.shapes]
    times_ns = ready_times_ns(
        [module.name for module, _ in ready_order],
        {module.name: module.work for module in modules},
        max(backward_ns, len(ready_order)),
    )
    return tuple(
        Tensor(
            name=f"{module.name}.{name}",
            shape=module.shapes[name],
            dtype=dtype,
            layer=module.layer,
            registration=registration[module.name, name],
            submit_ns=time_ns,
            ready_ns=time_ns,
        )
        for (module, name), time_ns in zip(ready_order, times_ns, strict=True)
    )


def _duration_ns(amount: int, per_second: int) -> int:
    """Rounded up, so that work never takes no time."""
    return -(-amount * 1_000_000_000 // per_second)


def _check(
    device_flops: object, growth: object, kernel: object, input: object, batch: object, dtype: object
) -> None:
    problems: list[Problem] = []

    def demand(key: str, value: object, holds: bool, message: str, allowed: tuple[str, ...] = ()) -> None:
        if not holds:
            found = f"{value!r} {message}"
            problems.append(Problem("workload generator stemdl", key, value, found, allowed))

    demand("device_flops", device_flops, _natural(device_flops), "is not a whole number of FLOP/s, 1 or more")
    demand("growth", growth, _natural(growth), "is not a whole number of channels, 1 or more")
    demand("kernel", kernel, _odd(kernel), "is not an odd whole number of pixels, such as 3 or 5")
    demand(
        "input",
        input,
        _is_input(input),
        f"is not [channels, height, width] with height and width divisible by {2**POOLS}",
    )
    demand("batch", batch, _natural(batch), "is not a whole number of samples, 1 or more")
    demand("dtype", dtype, dtype in GRADIENT_DTYPES, "is not a gradient's data type", GRADIENT_DTYPES)
    if problems:
        raise InputError(problems)


def _natural(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _odd(value: object) -> bool:
    return isinstance(value, int) and _natural(value) and value % 2 == 1


def _is_input(value: object) -> bool:
    if not (isinstance(value, (list, tuple)) and len(value) == 3 and all(map(_natural, value))):
        return False
    return all(size % 2**POOLS == 0 for size in value[1:])
