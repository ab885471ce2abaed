"""Gradients of one iteration: each parameter counts once, however often its gradient is accumulated.

``torch::autograd::AccumulateGrad`` is recorded once for each parameter and backward pass. Its input is the gradient
that comes in, an object that is freed and whose number is given away again, so it names no parameter. What tells:

1. Autograd takes nodes of backward by falling sequence number. Where the numbers rise, a new pass has begun, unless
   that is a backward within a backward (checkpointing). Within a pass a parameter is accumulated once.
2. Without sequence numbers, passes are told by a list of shapes that repeats.
3. Passes whose gradients are all among those of another are of the same parameters; others are of other parameters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from coordsim.formats.chakra.node import Node

NAME = "torch::autograd::AccumulateGrad"
MOST_MODELS = 32
EVALUATED = "autograd::engine::evaluate_function: "
"""Name of the engine's nodes, each of which contains one node of backward."""


class Accumulation(NamedTuple):
    """One gradient that was accumulated."""

    number: int
    shape: tuple[int, ...] | None
    dtype: str | None
    nbytes: int | None
    source: tuple[int, int] | None
    """Numbers of the incoming tensor and its storage."""

    @property
    def kind(self) -> tuple[tuple[int, ...] | None, str | None, int | None]:
        """What all gradients of one parameter have in common."""
        return self.shape, self.dtype, self.nbytes


class Backward(NamedTuple):
    """A node of backward with a sequence number."""

    number: int
    parent: int
    thread: object
    sequence: int


def accumulation_of(node: Node) -> Accumulation:
    """Return the accumulation that ``node``, which is called :data:`NAME`, records."""
    tensors = node.inputs.tensors(0)
    if len(tensors) != 1:
        return Accumulation(node.number, None, None, None, None)
    tensor = tensors[0]
    source = None
    if tensor.identity is not None and tensor.storage is not None:
        source = tensor.identity, tensor.storage
    return Accumulation(node.number, tensor.shape, tensor.dtype, tensor.nbytes, source)


def starts_of_passes(backward: Iterable[Backward], evaluated: dict[int, int]) -> list[int]:
    """Return the numbers of the nodes with which backward passes begin: where sequence numbers rise on a thread.

    ``evaluated`` holds the engine's nodes, each with its parent. A node whose parent is a node of backward runs within
    that.
    """
    nodes = sorted(backward)
    numbers = {node.number for node in nodes}
    last: dict[object, int] = {}
    starts = []
    for node in nodes:
        if evaluated.get(node.parent) in numbers:
            continue
        if node.sequence > last.get(node.thread, -1):
            starts.append(node.number)
        last[node.thread] = node.sequence
    return starts


def passes_of(
    accumulated: Sequence[Accumulation], starts: Sequence[int], forwards: int, reduced_bytes: int | None
) -> list[list[Accumulation]]:
    """``accumulated``, of one section and in order, by backward pass.

    Args:
        starts: Where passes begin (:func:`starts_of_passes`); empty when the trace has no sequence numbers.
        forwards: How many forward passes of DDP the section has.
        reduced_bytes: What its allreduces send together, when that is known.
    """
    if starts:
        passes: list[list[Accumulation]] = [[]]
        following = iter([*starts, None])
        until = next(following)
        for gradient in accumulated:
            while until is not None and gradient.number > until:
                passes.append([])
                until = next(following)
            passes[-1].append(gradient)
        return [gradients for gradients in passes if gradients]
    count = _repetitions(accumulated, forwards, reduced_bytes)
    length = len(accumulated) // count
    return [list(accumulated[begin : begin + length]) for begin in range(0, len(accumulated), length)]


def _repetitions(accumulated: Sequence[Accumulation], forwards: int, reduced_bytes: int | None) -> int:
    """How many times the list of shapes repeats, where that may mean passes: else 1.

    A list of one shape only may as well be of equal layers; then it takes one of three to show that it is passes: as
    many forward passes, the bytes that are reduced, or several tensors that come again in the same order.
    """
    shapes = [gradient.kind for gradient in accumulated]
    sources = [gradient.source for gradient in accumulated]
    for length in range(1, len(shapes) // 2 + 1):
        if len(shapes) % length or not _repeats(shapes, length):
            continue
        count = len(shapes) // length
        sizes = [gradient.nbytes for gradient in accumulated[:length]]
        total = None if None in sizes else sum(size or 0 for size in sizes)
        again = None not in sources and 1 < len(set(sources)) == length and _repeats(sources, length)
        if len(set(shapes)) > 1 or count == forwards or again or (total is not None and total == reduced_bytes):
            return count
    return 1


def _repeats(values: Sequence[object], length: int) -> bool:
    return all(value == values[place % length] for place, value in enumerate(values))


def parameters_of(passes: Sequence[Sequence[Accumulation]]) -> list[Accumulation]:
    """Return one accumulation for each parameter of ``passes``, in the order in which gradients were complete."""
    counts = union([Counter(gradient.kind for gradient in gradients) for gradients in passes])
    return last_of_each([gradient for gradients in passes for gradient in gradients], counts)


def union(counts: Sequence[Counter[object]]) -> Counter[object]:
    """Return the parameters of passes, or of sections, of one model, of parts of it, or of several models.

    If all gradients of one are in another, both are of the same model; otherwise they are of different ones. A job has
    at most :data:`MOST_MODELS` models; further passes count for the last one, with the largest number of each kind.
    """
    groups: list[Counter[object]] = []
    for count in sorted(counts, key=lambda count: -count.total()):
        if any(all(number <= group[kind] for kind, number in count.items()) for group in groups):
            continue
        if len(groups) < MOST_MODELS:
            groups.append(Counter(count))
        else:
            raise_to(groups[-1], count)
    return sum(groups, Counter())


def raise_to(most: Counter[object], count: Counter[object]) -> None:
    """Make each number in ``most`` at least that in ``count``; unlike ``|=``, in time proportional to ``count``."""
    for kind, number in count.items():
        if number > most[kind]:
            most[kind] = number


def last_of_each(accumulated: Sequence[Accumulation], counts: Counter[object]) -> list[Accumulation]:
    """Return as many of each kind as ``counts`` states, the last ones, in order: by then a gradient is complete."""
    left = Counter(counts)
    last = []
    for gradient in reversed(accumulated):
        if left[gradient.kind] > 0:
            left[gradient.kind] -= 1
            last.append(gradient)
    return last[::-1]
