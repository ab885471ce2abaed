"""Stall detection: who has waited too long, by a clock that the driver passes in.

Source: horovod/common/stall_inspector.cc as described in docs/horovod.md 2.8.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class StallClock:
    """Times names that wait. One per rank for its own cache hits; one on the coordinator for its table."""

    def __init__(self, warn_after_ns: int) -> None:
        self.warn_after_ns = warn_after_ns
        self._since: dict[str, int] = {}

    def observe(self, waiting: Iterable[str], now_ns: int) -> frozenset[str]:
        """Names among ``waiting`` that have waited at least ``warn_after_ns``; others start or stop waiting."""
        self._since = {name: self._since.get(name, now_ns) for name in waiting}
        return frozenset(
            name for name, since in self._since.items() if now_ns - since >= self.warn_after_ns
        )


def stall_report(stalled: frozenset[str], missing: Mapping[str, tuple[int, ...]]) -> dict[int, list[str]]:
    """Per missing rank, the stalled names it has not asked for; ranks that did ask do not appear."""
    report: dict[int, list[str]] = {}
    for name in sorted(stalled):
        for rank in missing.get(name, ()):
            report.setdefault(rank, []).append(name)
    return dict(sorted(report.items()))
