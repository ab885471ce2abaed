"""LogGP: the cost of one control message for its sender, the wire and its receiver (docs/semantics.md 1.1, 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

from coordsim.errors import Refused
from coordsim.scenario.model import Cluster

NS_PER_S = 1_000_000_000
MAX_MESSAGE_BYTES = 9_200_000_000
"""Largest message for which ``bytes * 10**9`` fits int64."""
RENDEZVOUS_BYTES = 16
"""Size of a request-to-send, and of the clear-to-send that answers it."""


LONGEST_CLOCK_NS = 1 << 61
"""73 years. Beyond it sums of times could exceed int64."""


def refuse_beyond_clock(time_ns: int, what: str) -> None:
    """Raise Refused if ``time_ns``, a time or a bound on one, exceeds the longest clock; ``what`` names it."""
    if time_ns > LONGEST_CLOCK_NS:
        raise Refused.one("scenario", "", time_ns, f"{what} passes {LONGEST_CLOCK_NS / 1e9:.1e} s, the longest clock")


def refuse_message(nbytes: int) -> None:
    """Raise Refused if a control message is too large for exact integer arithmetic."""
    if nbytes > MAX_MESSAGE_BYTES:
        raise Refused.one(
            "scenario", "message", nbytes, f"a message of {nbytes} bytes exceeds {MAX_MESSAGE_BYTES}"
        )


def transfer_ns(nbytes: int, bandwidth_Bps: int) -> int:
    """Return the time on the wire, rounded up once per message. Raises Refused above 9.2 GB."""
    refuse_message(nbytes)
    return -(-nbytes * NS_PER_S // bandwidth_Bps)


@dataclass(frozen=True, slots=True)
class LogGP:
    """Message costs between ranks of one job, which are placed on nodes in order."""

    latency_ns: int
    overhead_ns: int
    bandwidth_Bps: int
    local_latency_ns: int
    local_bandwidth_Bps: int
    root_nic_Bps: int
    ranks_per_node: int

    @classmethod
    def of(cls, cluster: Cluster) -> LogGP:
        """Return the control network of ``cluster``."""
        control = cluster.control
        return cls(
            control.latency_ns, control.overhead_ns, control.bandwidth_Bps, control.local_latency_ns,
            control.local_bandwidth_Bps, control.root_nic_Bps, cluster.machine.ranks_per_node,
        )  # fmt: skip

    def local(self, source: int, target: int) -> bool:
        """Return whether two ranks share a node."""
        return source // self.ranks_per_node == target // self.ranks_per_node

    def wire_ns(self, source: int, target: int, nbytes: int) -> int:
        """Return xfer(b) on the link between two ranks."""
        local = self.local(source, target)
        return transfer_ns(nbytes, self.local_bandwidth_Bps if local else self.bandwidth_Bps)

    def send_busy_ns(self, source: int, target: int, nbytes: int) -> int:
        """Return the time for which the sender's CPU is busy."""
        return max(self.overhead_ns, self.wire_ns(source, target, nbytes))

    def flight_ns(self, source: int, target: int, nbytes: int) -> int:
        """Return the time from the start of the send to the message's arrival: o + L + xfer(b)."""
        latency = self.local_latency_ns if self.local(source, target) else self.latency_ns
        return self.overhead_ns + latency + self.wire_ns(source, target, nbytes)

    def root_service_ns(self, nbytes: int) -> int:
        """Return the root's time for one gathered message: its CPU, or its share of the root's NIC if that is
        longer."""
        return max(self.overhead_ns, transfer_ns(nbytes, self.root_nic_Bps))
