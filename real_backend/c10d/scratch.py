"""Memory for reductions whose input has to stay unchanged. It is kept, because fresh pages cost more than the copy."""

from __future__ import annotations

import threading

import torch

KEPT = 4
"""Largest number of free buffers; the one used last is used next."""


class Scratch:
    """Buffers of one group, in host memory. Any thread may take and give."""

    def __init__(self) -> None:
        self._free: list[torch.Tensor] = []
        self._lock = threading.Lock()

    def take(self, like: torch.Tensor) -> torch.Tensor:
        """Return an uninitialised buffer for the elements of ``like``, in one dimension; it belongs to the caller until
        given back."""
        with self._lock:
            fits = [index for index, each in enumerate(self._free) if each.nbytes >= like.nbytes]
            if fits:
                buffer = self._free.pop(min(fits, key=lambda index: self._free[index].nbytes))
                return buffer[: like.nbytes].view(like.dtype)
        return torch.empty(like.nbytes, dtype=torch.uint8).view(like.dtype)

    def give(self, taken: torch.Tensor) -> None:
        """Give a buffer back that is no longer used."""
        storage = torch.empty(0, dtype=torch.uint8).set_(taken.untyped_storage())
        with self._lock:
            self._free.append(storage)
            if len(self._free) > KEPT:
                self._free.pop(0)
