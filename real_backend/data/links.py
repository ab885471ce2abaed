"""Small reductions through the control tree's links.

They take two messages a link instead of a ring of 2 (N - 1) hops, and none of their own when they travel with the bit
vector. Children are added in rank order, whatever else is fused with a tensor, so that a sum has the same bits in every
run and under any fusion.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch

from coordsim.protocol.negotiator import AndReduce
from real_backend.control.links import Kind
from real_backend.control.tree import TreeTransport


class LinkReducer:
    """Reductions over the links between the exchanges of two cycles; used by the background thread alone."""

    def __init__(self, transport: TreeTransport) -> None:
        self._transport = transport
        self._scratch: dict[torch.dtype, torch.Tensor] = {}

    def allreduce(self, flat: torch.Tensor, combine: Callable[[torch.Tensor, torch.Tensor], None]) -> None:
        """Combine ``flat`` (contiguous, one dimension, CPU) of all ranks, in place."""
        neighbours = self._transport.neighbours
        cycle = self._transport.cycle
        if neighbours.children:
            other = self._other(flat)
            view = as_bytes(other)
            for link in neighbours.children:
                link.receive_into(Kind.DATA_UP, view)
                combine(flat, other)
        mine = as_bytes(flat)
        if neighbours.parent is not None:
            neighbours.parent.send(Kind.DATA_UP, cycle, mine)
            neighbours.parent.receive_into(Kind.DATA_DOWN, mine)
        for link in neighbours.children:
            link.send(Kind.DATA_DOWN, cycle, mine)

    def intersect(
        self, asked: AndReduce, flat: torch.Tensor, combine: Callable[[torch.Tensor, torch.Tensor], None]
    ) -> tuple[int, bool]:
        """Perform the AND of a cycle, and combine ``flat`` over all ranks with it, if all offer the same (second
        result)."""
        other = self._other(flat)
        view = as_bytes(other)

        def add(theirs: memoryview) -> None:
            view[:] = theirs
            combine(flat, other)

        return self._transport.intersect_with_data(asked, as_bytes(flat), add)

    def _other(self, flat: torch.Tensor) -> torch.Tensor:
        held = self._scratch.get(flat.dtype)
        if held is None or held.numel() < flat.numel():
            held = self._scratch[flat.dtype] = torch.empty_like(flat)
        return held[: flat.numel()]


def as_bytes(flat: torch.Tensor) -> memoryview:
    """Return the bytes of a contiguous CPU tensor, which share its memory and must not outlive it.

    ``numpy()`` is not used: it would forbid the owner to resize the storage afterwards, as FSDP does to free it.
    """
    view: memoryview = _view(flat.data_ptr(), flat.nbytes, _WRITABLE)
    return view


_WRITABLE = 0x200
"""PyBUF_WRITE of Python's C interface."""
_view = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)(
    ("PyMemoryView_FromMemory", ctypes.pythonapi)
)
