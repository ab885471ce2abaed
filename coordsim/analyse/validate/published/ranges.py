"""What is uncertain: low, median and high of parameters, and where each range comes from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from coordsim.scenario import catalog

_NUMBER = re.compile(r"([0-9.]+)(.*)")


@dataclass(frozen=True, slots=True)
class Range:
    """One uncertain parameter of a scenario."""

    name: str
    label: str
    key: str
    """As for ``--set``."""
    values: tuple[str, str, str]
    """Low, median, high. The median is what the scenario has without any override."""
    costly: Literal["low", "high"]
    """Which end slows training down."""
    source: str

    def at(self, index: int) -> tuple[str, ...]:
        """Overrides for the low (0) or the high (2) value; none where it is the median."""
        return (f"{self.key}={self.values[index]}",) if self.values[index] != self.values[1] else ()

    def end(self, costly: bool) -> tuple[str, ...]:
        """Overrides for the costly, or the cheap, end."""
        return self.at(2 if (self.costly == "high") == costly else 0)

    def between(self, share: float) -> str | None:
        """The value at ``share`` of the way from low to high; None where values are no numbers."""
        found = [_NUMBER.fullmatch(value) for value in self.values]
        if found[0] is None or found[2] is None:
            return None
        low, high = float(found[0][1]), float(found[2][1])
        return f"{low + share * (high - low):.4g}{found[2][2]}"

def ranges_of(cluster: str) -> tuple[Range, ...]:
    """The uncertain numbers of a catalog's cluster, as its file states them beside the numbers."""
    tree = catalog.read("cluster", cluster)
    return tuple(_range(tree, key, stated) for key, stated in tree.get("ranges", {}).items())


def _range(tree: dict[str, Any], key: str, stated: dict[str, Any]) -> Range:
    median: Any = tree
    for part in key.split("."):
        median = median[part]
    full = key if key.startswith("noise.") else f"cluster.{key}"
    values = stated["low"], str(median), stated["high"]
    return Range(stated["name"], stated["label"], full, values, stated["costly"], stated["source"])


SUMMIT = ranges_of("summit")
"""Of the catalog's ``summit``."""
_JITTER = next(each for each in SUMMIT if each.name == "jitter")

_SLOW_CYCLES_ONLY = ("request_cost", "list_cost", "gather")
UNASKED = tuple(each for each in SUMMIT if each.name not in _SLOW_CYCLES_ONLY)
"""Those that can matter where nobody asks a coordinator: ``cached`` once its cache is warm, ``ddp``."""

PASCAL = (
    Range("request_cost", "request cost", "cluster.host.per_request", ("0.28us", "0.56us", "1.02us"), "high",
          "DERIVED: real Horovod on a Xeon, least, median and largest estimate (coordsim/analyse/request_cost.py)"),
    _JITTER,
    Range("bandwidth", "bus bandwidth", "cluster.data.bus_bandwidth", ("2GB/s", "2.63GB/s", "2.9GB/s"), "low",
          "ASSUMED, the catalog's sweep; the median is fitted to VGG-16 on 16 GPUs (docs/published.md 7)"),
    Range("hop_latency", "hop latency", "cluster.data.hop_latency", ("100%", "250%", "350%"), "high",
          "READ low end, NCCL's own table; median fitted to VGG-16 on 128 GPUs; high: what its rounding to 1 % allows"),
    Range("enqueue", "hooks ahead of the GPU", "workload.enqueue", ("5%", "10%", "50%"), "low",
          "ASSUMED; the median is fitted to Inception V3 and ResNet-101 on 16 GPUs"),
    Range("control_latency", "control latency", "cluster.control.latency", ("2us", "2.5us", "20us"), "high",
          "ASSUMED, the catalog's sweep: 20 us is TCP"),
)  # fmt: skip
"""Of Horovod's 512 Pascal GPUs, on the catalog's ``pascal-25g`` with :data:`~.horovod_chart.SETTINGS`."""
