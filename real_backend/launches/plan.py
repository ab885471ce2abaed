"""The launches of ``coordsim validate here``: settings and workloads as real Horovod was recorded with, and more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

STEPS = 53
DELAY_US = 100
"""Time for which a rank sleeps before each submission."""

WORKLOADS: dict[str, dict[str, Any]] = {
    "seq": {"delay_us": DELAY_US},
    "seq_nodelay": {},
    "group1": {"groups": 1, "delay_us": DELAY_US},
    "group5": {"groups": 5, "delay_us": DELAY_US},
    "group10": {"groups": 10, "delay_us": DELAY_US},
    "random": {"order": "random", "delay_us": DELAY_US},
    "straggler20ms": {"straggler_ms": 20, "delay_us": DELAY_US},
    "single_256": {"prefix": "one256", "tensors": 1, "numel": 256},
    "single_4096": {"prefix": "one4096", "tensors": 1, "numel": 4096},
    "scaled64": {"sizes": "scaled", "steps": 20, "delay_us": DELAY_US},
}
"""Name -> the ``spec`` of a workload (``docs/validation.md`` 2)."""


@dataclass(frozen=True)
class Plan:
    """One launch."""

    case: str
    ranks: int
    cycle_ms: float = 1.0
    cache: bool = True
    threshold_bytes: int = 64 << 20
    workloads: tuple[str, ...] = tuple(WORKLOADS)
    steps: int = STEPS
    delay_ms: float = 0.0
    """One-way delay of an emulated network between the ranks; 0: they are on one host."""

    def specs(self) -> dict[str, dict[str, Any]]:
        return {
            name: {"name": name, "steps": self.steps, **WORKLOADS[name]} for name in self.workloads
        }  # fmt: skip


def plans(ranks: Sequence[int], quick: bool = False, networks: bool = False) -> list[Plan]:
    """Return all launches for each number of ``ranks``.

    With ``quick`` there are fewer workloads and steps, to check that it runs. ``networks`` adds launches over emulated
    networks, on two hosts.
    """
    listed = []
    for n in ranks:
        for cache in (True, False):
            for cycle_ms in (1.0, 2.0, 5.0):
                if cycle_ms != 1.0 and (n > 2 or (quick and cycle_ms == 2.0)):
                    continue
                name = f"here_n{n}_cache{'' if cache else '0'}" + ("" if cycle_ms == 1.0 else f"_cyc{cycle_ms:g}")
                listed.append(Plan(name, n, cycle_ms, cache))
        if n == 2 and not quick:
            some = ("seq", "seq_nodelay", "group5", "random", "scaled64")
            listed.append(Plan("here_n2_cache_fusion8k", 2, threshold_bytes=8 << 10, workloads=some))
            listed.append(Plan("here_n2_cache_again", 2, workloads=some))
    if networks:
        apart = ("seq", "seq_nodelay", "group5", "straggler20ms", "single_256")
        for delay_ms in (2.0,) if quick else (2.0, 5.0):
            for cache in (True, False):
                name = f"here_n2_cache{'' if cache else '0'}_net{delay_ms:g}ms"
                listed.append(Plan(name, 2, cache=cache, workloads=apart, delay_ms=delay_ms))
    if quick:
        few = ("seq", "seq_nodelay", "group5", "single_256")
        listed = [replace(each, workloads=few, steps=20) for each in listed]
    return listed
