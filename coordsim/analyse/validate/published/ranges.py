"""What is uncertain: low, median and high of parameters, and where each range comes from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

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


_REQUEST_SOURCE = (
    "DERIVED: real Horovod on CPU, 0.28-1.02 us, median 0.56 us (coordsim/analyse/request_cost.py), rounded; POWER9, "
    "MPI and other caches differ, so up to 3 us (docs/published.md 8)"
)
_JITTER_SOURCE = (
    "DERIVED from Sinha et al. (SC'22): 8 % as the range of 27,648 GPUs (8.2 sigma), 8 % as a whisker range (5.4 "
    "sigma), 22 % as a whisker range"
)
_REQUEST = Range(
    "request_cost", "request cost", "cluster.host.per_request", ("0.3us", "0.56us", "3us"), "high", _REQUEST_SOURCE
)
_JITTER = Range("jitter", "jitter sigma", "noise.rank.sigma", ("1.0%", "1.5%", "4.1%"), "high", _JITTER_SOURCE)

SUMMIT = (
    _REQUEST,
    Range("list_cost", "per-message cost (host)", "cluster.host.per_message", ("0.05us", "0.5us", "5us"), "high",
          "ASSUMED: the catalog calls it uncertain by 10x, either way"),
    Range("message_overhead", "per-message cost (network)", "cluster.control.overhead", ("0.3us", "0.5us", "1us"),
          "high", "DERIVED: MPI_Gatherv at 0.3-1 us a message (docs/published.md 4)"),
    Range("gather", "gather algorithm", "cluster.control.gather", ("node-leaders", "linear", "linear"), "high",
          "READ: Gatherv is probably linear at the root; node leaders are what a good MPI might do "
          "(docs/published.md 4)"),
    _JITTER,
    Range("bandwidth", "bus bandwidth", "cluster.data.bus_bandwidth", ("15GB/s", "20GB/s", "23GB/s"), "low",
          "ASSUMED: the catalog's sweep; 23 GB/s is the injection of a node (READ)"),
    Range("device_list", "device list entry", "cluster.host.device_entry", ("0ns", "4.28ns", "8.56ns"), "high",
          "DERIVED median (docs/published.md 8: about 19 ms a step); 0 is a wire form without device lists; the other "
          "end ASSUMED twice"),
    Range("control_latency", "control latency", "cluster.control.latency", ("1.3us", "1.5us", "3us"), "high",
          "RECALL: ping-pong 1.3-1.6 us; 3 us makes an 8 B allreduce over 4,600 nodes take about 60 us "
          "(RECALL: 20-60 us)"),
)  # fmt: skip
"""Of the catalog's ``summit``."""

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
