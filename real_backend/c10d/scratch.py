"""Memory in which to reduce what the caller wants unchanged; kept, because fresh pages cost more than the copy."""

from __future__ import annotations

import threading

import torch

KEPT = 4
"""Buffers that lie ready, at most; the one used last goes on to be used."""


class Scratch:
    """One group's, in host memory. Any thread may take and give."""

    def __init__(self) -> None:
        self._free: list[torch.Tensor] = []
        self._lock = threading.Lock()

    def take(self, like: torch.Tensor) -> torch.Tensor:
        """Room for the elements of ``like``, in one dimension, with whatever is in it; the taker's until given back."""
        with self._lock:
            fits = [index for index, each in enumerate(self._free) if each.nbytes >= like.nbytes]
            if fits:
                buffer = self._free.pop(min(fits, key=lambda index: self._free[index].nbytes))
                return buffer[: like.nbytes].view(like.dtype)
        return torch.empty(like.nbytes, dtype=torch.uint8).view(like.dtype)

    def give(self, taken: torch.Tensor) -> None:
        """Nobody uses it any more."""
        storage = torch.empty(0, dtype=torch.uint8).set_(taken.untyped_storage())
        with self._lock:
            self._free.append(storage)
            if len(self._free) > KEPT:
                self._free.pop(0)
