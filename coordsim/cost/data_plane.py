"""Cost of one response on the data plane and on the ranks that launch it (docs/semantics.md 4.5, 6)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from coordsim.cost.collectives import allreduce_ns
from coordsim.cost.copies import copy_ns
from coordsim.scenario.model import Scenario


class ResponseCost(NamedTuple):
    """Durations of one response, ns."""

    local_ns: int
    """Serial CPU work on every rank before the launch."""
    launch_ns: int
    copy_in_ns: int
    collective_ns: int
    copy_out_ns: int

    @property
    def stream_ns(self) -> int:
        """Time for which the response holds the data plane's stream, ns."""
        return self.copy_in_ns + self.collective_ns + self.copy_out_ns


class DataPlane:
    """Response costs of one scenario. Every value is a Python int."""

    def __init__(self, scenario: Scenario) -> None:
        cluster, plane = scenario.cluster, scenario.control_plane
        self.blocking = plane.data_plane == "blocking"
        self._data = cluster.data
        self._ranks = scenario.ranks
        self._ranks_per_node = cluster.machine.ranks_per_node
        self._launch_ns = 0 if plane.kind.free else cluster.host.launch_ns
        device_list_ns = 0
        if plane.wire == "horovod":
            device_list_ns = cluster.host.device_entry_ps * scenario.ranks // 1000
        self._local_ns = (cluster.host.local_response_ns + device_list_ns) if plane.kind.negotiates else 0
        self.cost = lru_cache(maxsize=None)(self._cost)

    def _cost(self, nbytes: int, tensors: int) -> ResponseCost:
        """Return the cost of a response of ``nbytes`` over ``tensors`` members."""
        copy = copy_ns(nbytes, tensors, self._data) if self._data.copy_bandwidth_Bps else 0
        collective = 1
        if self._data.allreduce != "free":
            collective = max(allreduce_ns(nbytes, self._ranks, self._data, self._ranks_per_node), 1)
        return ResponseCost(self._local_ns * tensors, self._launch_ns, copy, collective, copy)
