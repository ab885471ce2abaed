"""Workloads that are computed from a network's shape instead of read from a table.

A catalog entry with ``generator = "NAME"`` calls ``GENERATORS[NAME](device_flops=..., **parameters)``.
"""

from __future__ import annotations

from collections.abc import Callable

from coordsim.scenario.generators import stemdl
from coordsim.scenario.generators.generated import Generated

GENERATORS: dict[str, Callable[..., Generated]] = {"stemdl": stemdl.build}

__all__ = ["GENERATORS", "Generated"]
