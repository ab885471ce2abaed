"""Fusion buffers: one per element type and device, kept, grown when needed, with the views into them remembered.

A response is carried out in *pieces*: runs of neighbours that fill a few megabytes, so that one is copied while another
is on its way, and large tensors alone, which are not copied at all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from coordsim.protocol import execution
from coordsim.protocol.messages import Response

LAYOUTS_KEPT = 512
"""Largest number of layouts (the place of each tensor) that are remembered; a static model uses few."""


@dataclass(slots=True)
class Piece:
    """Neighbours in a buffer that travel together."""

    first: int
    """Positions in the response: from ``first`` up to, but not including, ``last``."""
    last: int
    flat: torch.Tensor
    """Their part of the buffer, in one dimension."""
    views: list[torch.Tensor]
    """The part of each tensor, in the tensor's own shape."""


@dataclass(slots=True)
class Layout:
    """The place of one response in a buffer."""

    shapes: list[tuple[int, ...]]
    flat: torch.Tensor
    """The whole response, in one dimension."""
    views: list[torch.Tensor]
    pieces: list[Piece]


class FusionBuffers:
    """The buffers of one thread, which carries out one response after the other."""

    def __init__(self, piece_bytes: int) -> None:
        """``piece_bytes`` limits a piece of several tensors; a larger tensor is a piece by itself."""
        self._piece_bytes = piece_bytes
        self._buffers: dict[tuple[torch.dtype, torch.device], torch.Tensor] = {}
        self._layouts: OrderedDict[tuple[object, ...], Layout] = OrderedDict()

    def layout(
        self, response: Response, shapes: list[tuple[int, ...]], dtype: torch.dtype, device: torch.device
    ) -> Layout:
        """Return where tensors of ``shapes`` lie, one after the other. The result is valid until the next call."""
        key = (response.names, dtype, device)
        known = self._layouts.get(key)
        if known is not None and known.shapes == shapes:
            self._layouts.move_to_end(key)
            return known
        spans = execution.spans(response)
        buffer = self._buffer(spans[-1].stop, dtype, device)
        flat = buffer[: spans[-1].stop]
        views = [flat[span.start : span.stop].view(shape) for span, shape in zip(spans, shapes, strict=True)]
        pieces = [
            Piece(first, last, flat[spans[first].start : spans[last - 1].stop], views[first:last])
            for first, last in _runs(response.sizes, self._piece_bytes)
        ]
        self._layouts[key] = Layout(shapes, flat, views, pieces)
        if len(self._layouts) > LAYOUTS_KEPT:
            self._layouts.popitem(last=False)
        return self._layouts[key]

    def _buffer(self, elements: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        held = self._buffers.get((dtype, device))
        if held is None or held.numel() < elements:
            held = self._buffers[dtype, device] = torch.empty(elements, dtype=dtype, device=device)
            self._layouts = OrderedDict(
                (key, layout) for key, layout in self._layouts.items()
                if (layout.flat.dtype, layout.flat.device) != (dtype, device)
            )  # fmt: skip
        return held


def _runs(sizes: Sequence[int], limit_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield runs of neighbours whose bytes add up to at most ``limit_bytes``, as (first, one past the last)."""
    first, total = 0, 0
    for index, size in enumerate(sizes):
        if index > first and total + size > limit_bytes:
            yield first, index
            first, total = index, 0
        total += size
    yield first, len(sizes)
