"""Compiled inner loops of the vector engine. Integers only; each has a reference it is tested against."""

from __future__ import annotations

from coordsim.compiling import borrowing, compiled, inlined

__all__ = ["borrowing", "compiled", "inlined"]
