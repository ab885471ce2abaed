"""Gradients that travel in fewer bits and come back in their own type."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Compression:
    """Floating-point gradients travel as ``dtype``; other gradients, and all if it is None, travel unchanged."""

    dtype: torch.dtype | None = None

    def travels(self, gradient: torch.Tensor) -> torch.Tensor:
        """Return what is reduced in place of ``gradient``: itself, or a converted copy."""
        if self.dtype is None or not gradient.is_floating_point() or gradient.dtype == self.dtype:
            return gradient
        return gradient.detach().to(self.dtype)

    @staticmethod
    def named(wanted: Compression | str | None) -> Compression:
        """Return the compression ``None``, ``"none"``, ``"fp16"`` or ``"bf16"``. Raises ValueError for another name."""
        if isinstance(wanted, Compression):
            return wanted
        try:
            return _NAMED[wanted or "none"]
        except KeyError:
            raise ValueError(f"compression {wanted!r}: one of {', '.join(_NAMED)}") from None


_NAMED = {"none": Compression(), "fp16": Compression(torch.float16), "bf16": Compression(torch.bfloat16)}
