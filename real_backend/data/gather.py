"""Gathers with equal shares: sizes need not be exchanged, and pieces arrive where the caller wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from coordsim.protocol.negotiator import tree_children
from real_backend.control.links import Kind
from real_backend.control.tree import TreeTransport
from real_backend.data.links import as_bytes


@dataclass(frozen=True, slots=True)
class EqualShares:
    """Output of an allgather in which all ranks give as many elements, and know it. One of the two attributes is
    set."""

    whole: torch.Tensor | None = None
    """A contiguous tensor, shape [ranks, elements]."""
    parts: Sequence[torch.Tensor] = ()
    """One contiguous tensor of one dimension for each rank."""

    @property
    def ranks(self) -> int:
        return len(self.parts) if self.whole is None else self.whole.shape[0]

    @property
    def result(self) -> torch.Tensor:
        return self.parts[0] if self.whole is None else self.whole

    def take(self, gathered: torch.Tensor) -> torch.Tensor:
        """Copy ``gathered``, all ranks' elements in rank order, to its place."""
        if self.whole is not None:
            self.whole.copy_(gathered.view(self.whole.shape))
        else:
            torch._foreach_copy_(list(self.parts), list(gathered.view(self.ranks, -1).unbind(0)))
        return self.result


class EqualGather:
    """Gathers over gloo, or over the control tree's links; used by the background thread alone."""

    def __init__(self, gloo: Any, links: TreeTransport | None, small_bytes: int) -> None:
        """Results of up to ``small_bytes`` go over ``links``."""
        self._gloo = gloo
        self._links = links
        self._small_bytes = small_bytes

    def gather(self, payloads: Sequence[torch.Tensor], shares: Sequence[EqualShares]) -> None:
        """Bring every rank's ``payloads`` to every rank's ``shares``; all are on the CPU and contiguous."""
        own_bytes = sum(payload.nbytes for payload in payloads)
        ranks = shares[0].ranks
        if own_bytes == 0 or ranks == 1:
            for payload, share in zip(payloads, shares, strict=True):
                share.take(payload)
        elif self._links is not None and own_bytes * ranks <= self._small_bytes:
            self._over_links(payloads, shares, self._links)
        else:
            pairs = zip(payloads, shares, strict=True)
            for work in [self._start(payload, share) for payload, share in pairs if payload.numel()]:
                work.wait()

    def _start(self, payload: torch.Tensor, share: EqualShares) -> Any:
        if share.whole is not None:
            return self._gloo._allgather_base(share.whole.view(-1), payload.view(-1))
        return self._gloo.allgather([list(share.parts)], [payload.view(-1)])

    def _over_links(
        self, payloads: Sequence[torch.Tensor], shares: Sequence[EqualShares], links: TreeTransport
    ) -> None:
        """Gather with one message a link up and one down."""
        alone = shares[0].whole if len(shares) == 1 else None
        if alone is not None:
            gather_bytes(links, as_bytes(payloads[0].view(-1)), as_bytes(alone.view(-1)))
            return
        own = torch.cat([payload.view(-1).view(torch.uint8) for payload in payloads])
        everybody = torch.empty((links.ranks, own.numel()), dtype=torch.uint8)
        gather_bytes(links, as_bytes(own), as_bytes(everybody.view(-1)))
        at = 0
        for payload, share in zip(payloads, shares, strict=True):
            columns = everybody[:, at : at + payload.nbytes].contiguous().view(-1)
            share.take(columns.view(payload.dtype))
            at += payload.nbytes


def gather_bytes(links: TreeTransport, own: memoryview, whole: memoryview) -> None:
    """Bring ``own`` of every rank, of the same length on all, to every rank's ``whole``, in rank order."""
    near, size = links.neighbours, len(own)
    whole[links.rank * size : (links.rank + 1) * size] = own
    for link in near.children:
        below = _subtree(link.peer, near.ranks, near.radix)
        if len(below) == 1:
            link.receive_into(Kind.DATA_UP, whole[link.peer * size : (link.peer + 1) * size])
            continue
        theirs = memoryview(bytearray(len(below) * size))
        link.receive_into(Kind.DATA_UP, theirs)
        for index, rank in enumerate(below):
            whole[rank * size : (rank + 1) * size] = theirs[index * size : (index + 1) * size]
    if near.parent is not None:
        mine = _subtree(links.rank, near.ranks, near.radix)
        up = own if len(mine) == 1 else b"".join(whole[rank * size : (rank + 1) * size] for rank in mine)
        near.parent.send(Kind.DATA_UP, links.cycle, up)
        near.parent.receive_into(Kind.DATA_DOWN, whole)
    for link in near.children:
        link.send(Kind.DATA_DOWN, links.cycle, whole)


def _subtree(rank: int, ranks: int, radix: int) -> list[int]:
    """Return ``rank`` and all ranks below it, level by level."""
    members, level = [rank], [rank]
    while level:
        level = [child for each in level for child in tree_children(each, ranks, radix)]
        members += level
    return members
