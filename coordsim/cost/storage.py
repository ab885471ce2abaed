"""Input: the time to read a step's samples, and the data set to stage. Times are integer ns."""

from __future__ import annotations

from dataclasses import dataclass

from coordsim.cost.network import NS_PER_S, refuse_beyond_clock
from coordsim.scenario.model import Scenario


@dataclass(frozen=True, slots=True)
class Staging:
    """The transfer of the data set from the parallel file system to the nodes, before the first step."""

    bytes_per_node: int
    """Bytes that the fullest node has to hold."""
    fits: bool | None
    """Whether they fit the node's storage; None if the capacity is not known."""
    time_ns: int | None
    """None if it does not fit, or if a rate is not known."""


def step_input_ns(scenario: Scenario) -> int:
    """Return the time to read the next step's samples, on the node with most ranks; 0 if there is no bound.

    From node-local storage every node reads for its own ranks. From the parallel file system all ranks share its
    aggregate rate, and no node receives data faster than its injection rate; the slower of the two counts. The time is
    rounded up to whole ns once. Raises Refused if it exceeds the longest clock.
    """
    workload, machine = scenario.workload, scenario.cluster.machine
    rank_bytes = workload.batch * workload.sample_bytes
    node_bytes = min(scenario.ranks, machine.ranks_per_node) * rank_bytes
    if machine.storage == "node-local":
        time_ns = _read_ns(node_bytes, machine.node_read_Bps)
    elif machine.parallel_read_Bps:
        together = _read_ns(scenario.ranks * rank_bytes, machine.parallel_read_Bps)
        time_ns = max(together, _read_ns(node_bytes, machine.node_injection_Bps))
    else:
        time_ns = 0
    refuse_beyond_clock(time_ns, "reading one step's samples")
    return time_ns


def staging(scenario: Scenario) -> Staging | None:
    """Return what is staged, and how long that takes; None if the scenario names no data set.

    With R replicas on n nodes every node stages R/n of the data set, at most all of it. All nodes read at once, and the
    slowest of the file system's aggregate rate, a node's storage and a node's injection rate counts. Training from the
    parallel file system needs no staging.
    """
    workload, machine = scenario.workload, scenario.cluster.machine
    if not workload.dataset_bytes:
        return None
    if machine.storage == "parallel":
        return Staging(0, True, 0)
    nodes = -(-scenario.ranks // machine.ranks_per_node)
    replicas = min(workload.replicas or nodes, nodes)
    share = -(-workload.dataset_bytes * replicas // nodes)
    fits = share <= machine.node_storage_bytes if machine.node_storage_bytes else None
    time_ns = None
    if fits is not False and machine.parallel_read_Bps and machine.node_write_Bps:
        time_ns = max(
            _read_ns(replicas * workload.dataset_bytes, machine.parallel_read_Bps),
            _read_ns(share, machine.node_write_Bps),
            _read_ns(share, machine.node_injection_Bps),
        )
    return Staging(share, fits, time_ns)


def _read_ns(nbytes: int, rate_Bps: int) -> int:
    """Return the time of ``nbytes`` at ``rate_Bps``, rounded up; 0 where the rate is no bound."""
    return -(-nbytes * NS_PER_S // rate_Bps) if rate_Bps else 0
