"""Large reductions among the ranks of one node, over their own memory, without a copy into a buffer.

Every rank reads its share of the others' tensors where these lie (``process_vm_readv``), adds it to its own, and then
reads the other shares from the ranks that have added them up. This reads (N - 1) / N of the bytes twice, once from
caches, against six copies of the same bytes through a fusion buffer and the two ends of a socket. Sums are in rank
order, so that they have the same bits in every run and under any fusion, as those of :mod:`real_backend.data.links`.

This works on Linux only, for processes of one user that may trace each other (``docs/backend.md`` states what forbids
it). Whether they may is tried at the start, and all ranks come to the same answer.
"""

from __future__ import annotations

import ctypes
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from coordsim.protocol.messages import ReduceOp
from real_backend.control.links import LinkLost
from real_backend.data.links import LinkReducer
from real_backend.data.reductions import COMBINE, scale

Int64 = npt.NDArray[np.int64]
Combine = Callable[[torch.Tensor, torch.Tensor], None]

BLOCK_BYTES = 512 << 10
"""Bytes read and added at once: small enough to stay in a core's cache."""
PARTS_AT_ONCE = 1024
"""Largest number of memory spans in one system call (IOV_MAX)."""
BYTES_AT_ONCE = 64 << 20
PLANS_KEPT = 256
"""Largest number of plans that are remembered; a static model uses few."""
_TOKEN_BYTES = 16


@dataclass(frozen=True, slots=True)
class Part:
    """A run of elements of one tensor."""

    tensor: int
    start: int
    stop: int
    at: int
    """Its place in its block, in elements."""


@dataclass(frozen=True, slots=True)
class Block:
    """Parts that are moved by one system call."""

    parts: tuple[Part, ...]
    tensors: Int64
    """Index of each part's tensor, shape [part]."""
    offsets: Int64
    """Offset of each part in its tensor, bytes, shape [part]."""
    lengths: Int64
    """Length of each part, bytes, shape [part]."""

    @property
    def elements(self) -> int:
        return self.parts[-1].at + self.parts[-1].stop - self.parts[-1].start

    def spans(self, addresses: Int64) -> Int64:
        """Return (address, bytes) of every part, shape [part, 2], where tensors lie at ``addresses``."""
        return np.stack((addresses[self.tensors] + self.offsets, self.lengths), axis=1)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a response is divided: rank r adds up the r-th of N equal shares of all elements."""

    small: tuple[tuple[Block, ...], ...]
    """Each rank's share in blocks that fit a cache."""
    large: tuple[tuple[Block, ...], ...]
    """Each rank's share in as few blocks as possible."""


def plan(sizes: Sequence[int], element_bytes: int, ranks: int) -> Plan:
    """Plan a response of tensors with ``sizes`` elements each."""
    total = sum(sizes)
    shares = [(rank * total // ranks, (rank + 1) * total // ranks) for rank in range(ranks)]
    return Plan(
        tuple(tuple(_blocks(sizes, share, element_bytes, BLOCK_BYTES)) for share in shares),
        tuple(tuple(_blocks(sizes, share, element_bytes, BYTES_AT_ONCE)) for share in shares),
    )


def _blocks(sizes: Sequence[int], share: tuple[int, int], element_bytes: int, limit_bytes: int) -> Iterator[Block]:
    limit = limit_bytes // element_bytes
    parts: list[Part] = []
    at = 0
    for tensor, (begin, end) in enumerate(pairwise(accumulate(sizes, initial=0))):
        start, stop = max(begin, share[0]), min(end, share[1])
        while start < stop:
            taken = min(stop - start, limit - at)
            parts.append(Part(tensor, start - begin, start - begin + taken, at))
            start, at = start + taken, at + taken
            if at == limit or len(parts) == PARTS_AT_ONCE:
                yield _block(parts, element_bytes)
                parts, at = [], 0
    if parts:
        yield _block(parts, element_bytes)


def _block(parts: list[Part], element_bytes: int) -> Block:
    table = np.array([(part.tensor, part.start, part.stop - part.start) for part in parts], dtype=np.int64)
    return Block(tuple(parts), table[:, 0].copy(), table[:, 1] * element_bytes, table[:, 2] * element_bytes)


class NodeMemory:
    """One rank's end; used by the background thread alone."""

    def __init__(self, links: LinkReducer, rank: int, processes: Sequence[int]) -> None:
        """``processes`` holds the process id of each rank. See :func:`open_memory`."""
        self._links = links
        self._rank, self._ranks = rank, len(processes)
        self._processes = tuple(processes)
        self._plans: OrderedDict[tuple[Any, ...], Plan] = OrderedDict()
        self._scratch = (_scratch(), _scratch())

    def allreduce(self, tensors: Sequence[torch.Tensor], combine: Combine, factor: float) -> None:
        """Combine ``tensors`` with all other ranks', in place, and multiply by ``factor``.

        The tensors are contiguous, of one dimension and one type, on the CPU. Raises LinkLost if a rank is gone,
        OSError if its memory can no longer be read.
        """
        cut = self._plan([tensor.numel() for tensor in tensors], tensors[0].dtype)
        addresses = self._addresses(tensors)
        for block in cut.small[self._rank]:
            self._add_up(block, tensors, addresses, combine, factor)
        self._meet()
        for distance in range(1, self._ranks):
            owner = (self._rank + distance) % self._ranks
            for block in cut.large[owner]:
                self._read(owner, block.spans(addresses[self._rank]), block.spans(addresses[owner]))
        self._meet()

    def _plan(self, sizes: list[int], dtype: torch.dtype) -> Plan:
        key = (dtype.itemsize, *sizes)
        known = self._plans.get(key)
        if known is None:
            known = self._plans[key] = plan(sizes, dtype.itemsize, self._ranks)
            if len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)
        else:
            self._plans.move_to_end(key)
        return known

    def _addresses(self, tensors: Sequence[torch.Tensor]) -> Int64:
        """Return the addresses of every rank's tensors, shape [rank, tensor]. Afterwards all ranks' tensors may be
        read."""
        table = torch.zeros((self._ranks, len(tensors)), dtype=torch.int64)
        table[self._rank] = torch.tensor([tensor.data_ptr() for tensor in tensors], dtype=torch.int64)
        self._links.allreduce(table.view(-1), COMBINE[ReduceOp.SUM])
        addresses: Int64 = table.numpy()
        return addresses

    def _meet(self) -> None:
        """Wait until all ranks have come to this point."""
        self._links.allreduce(torch.zeros(1, dtype=torch.int64), COMBINE[ReduceOp.SUM])

    def _add_up(
        self, block: Block, tensors: Sequence[torch.Tensor], addresses: Int64, combine: Combine, factor: float
    ) -> None:
        """Add up one block of this rank's share, in rank order.

        Rank 1 may begin with its own, since x + y equals y + x to the bit.
        """
        dtype = tensors[0].dtype
        mine = [tensors[part.tensor][part.start : part.stop] for part in block.parts]
        if self._rank > 1:
            so_far, views = self._views(0, block, dtype)
            self._read(0, so_far, block.spans(addresses[0]))
            for rank in range(1, self._rank):
                self._combine(rank, block, addresses, views, combine)
            for own, view in zip(mine, views, strict=True):
                combine(own, view)
        for rank in range(self._rank + 1 if self._rank > 1 else 0, self._ranks):
            if rank != self._rank:
                self._combine(rank, block, addresses, mine, combine)
        if factor != 1.0:
            for own in mine:
                scale(own, factor)

    def _combine(
        self, rank: int, block: Block, addresses: Int64, into: Sequence[torch.Tensor], combine: Combine
    ) -> None:
        theirs, views = self._views(1, block, into[0].dtype)
        self._read(rank, theirs, block.spans(addresses[rank]))
        for own, view in zip(into, views, strict=True):
            combine(own, view)

    def _views(self, which: int, block: Block, dtype: torch.dtype) -> tuple[Int64, list[torch.Tensor]]:
        """Return scratch memory for one block: (address, bytes) as one span, and a view of each part."""
        values = self._scratch[which].view(dtype)
        span = np.array([[values.data_ptr(), block.elements * dtype.itemsize]], dtype=np.int64)
        return span, [values[part.at : part.at + part.stop - part.start] for part in block.parts]

    def _read(self, rank: int, into: Int64, spans: Int64) -> None:
        """Read ``rank``'s memory at ``spans`` ([part, 2]: address, bytes) into this process's memory at ``into``."""
        try:
            read_memory(self._processes[rank], into, spans)
        except ProcessLookupError as error:
            raise LinkLost(rank, "its process is gone") from error


def open_memory(links: LinkReducer, rank: int, ranks: int) -> NodeMemory | None:
    """Return the node's memory; None, on every rank, unless all ranks can read each other's memory.

    All ranks must call it. Each leaves a token in its memory and states where; each tries to read every other's.
    """
    token = torch.frombuffer(bytearray(secrets.token_bytes(_TOKEN_BYTES)), dtype=torch.int64)
    facts = torch.zeros((ranks, 4), dtype=torch.int64)
    facts[rank] = torch.tensor([os.getpid(), token.data_ptr(), *token.tolist()])
    links.allreduce(facts.view(-1), COMBINE[ReduceOp.SUM])
    readable = torch.tensor([_all_readable(facts.tolist())], dtype=torch.int64)
    links.allreduce(readable, COMBINE[ReduceOp.MIN])
    return NodeMemory(links, rank, facts[:, 0].tolist()) if bool(readable) else None


def _all_readable(facts: Sequence[Sequence[int]]) -> bool:
    """Return whether every process (id, address of its token, token) is on this machine and shows its token."""
    token_read = torch.zeros(2, dtype=torch.int64)
    into = np.array([[token_read.data_ptr(), _TOKEN_BYTES]], dtype=np.int64)
    for process, address, *token in facts:
        try:
            read_memory(process, into, np.array([[address, _TOKEN_BYTES]], dtype=np.int64))
        except OSError:
            return False
        if token_read.tolist() != token:
            return False
    return True


def read_memory(process: int, into: Int64, spans: Int64) -> None:
    """Read another process's memory at ``spans`` into this one's at ``into``; both [part, 2]: address, bytes.

    Raises OSError if the process is gone (ProcessLookupError), may not be read or has no memory there, or if the system
    does not support it.
    """
    if _process_vm_readv is None:
        raise OSError("this system cannot read another process's memory")
    into, spans = np.ascontiguousarray(into), np.ascontiguousarray(spans)
    wanted = int(spans[:, 1].sum())
    got = _process_vm_readv(process, into.ctypes.data, len(into), spans.ctypes.data, len(spans), 0)
    if got < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if got != wanted:
        raise OSError(f"process {process} has {got} of {wanted} bytes there")


def _scratch() -> torch.Tensor:
    return torch.empty(BLOCK_BYTES, dtype=torch.uint8)


def _bound() -> Callable[..., int] | None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "process_vm_readv", None)
    if function is None:
        return None
    function.restype = ctypes.c_ssize_t
    function.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong,
    ]  # fmt: skip
    bound: Callable[..., int] = function
    return bound


_process_vm_readv = _bound()
