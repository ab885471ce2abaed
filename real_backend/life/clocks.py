"""Offsets between ranks' clocks, from messages that carry times (Mills 1991, NTP's four time stamps)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Offset:
    """``their clock = our clock + offset_ns``, with an error of at most ``error_ns``."""

    offset_ns: int
    error_ns: int
    """Half of the round trip beyond the peer's own time, which is the asymmetry that cannot be observed."""


def offset(sent_ns: int, received_ns: int, answered_ns: int, back_ns: int) -> Offset:
    """Return the offset from one round trip: sent and back by this clock, received and answered by the peer's."""
    away_ns = (back_ns - sent_ns) - (answered_ns - received_ns)
    return Offset(((received_ns - sent_ns) + (answered_ns - back_ns)) // 2, max(away_ns, 0) // 2 + 1)


class OffsetEstimate:
    """The best of many round trips, which is the shortest, since it bounds the error most tightly.

    Clocks drift apart, so an old measurement loses: its error grows by ``drift_ppm`` of its age.
    """

    def __init__(self, drift_ppm: int = 50) -> None:
        self._drift_ppm = drift_ppm
        self._best: Offset | None = None
        self._at_ns = 0

    def add(self, offset: Offset, now_ns: int) -> None:
        if self._best is None or offset.error_ns <= self._error_ns(now_ns):
            self._best, self._at_ns = offset, now_ns

    def at(self, now_ns: int) -> Offset | None:
        """Return the estimate with its error at ``now_ns``; None before the first round trip."""
        return None if self._best is None else Offset(self._best.offset_ns, self._error_ns(now_ns))

    def _error_ns(self, now_ns: int) -> int:
        assert self._best is not None
        return self._best.error_ns + (now_ns - self._at_ns) * self._drift_ppm // 1_000_000
