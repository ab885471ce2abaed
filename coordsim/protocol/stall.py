"""Stall detection: which tensors have waited too long, and for whom. The driver passes a clock in.

Source: horovod/common/stall_inspector.cc as described in docs/horovod.md 2.8. Unlike there, a stall is reported
once, not every period (horovod #2315), ranks are ranges (horovod #920), and a tree can say which ranks of a
subtree are missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from coordsim.protocol.messages import Ranges
from coordsim.protocol.ranges import spelled

NAMES_SHOWN = 6
"""Tensors named per line of a report (Horovod: 6 per rank)."""
LINES_SHOWN = 12
"""Lines of a report; ranks that miss the same tensors share one."""


@dataclass(frozen=True, slots=True)
class StallLimits:
    """How long is too long. Each rank may set its own. Raises ValueError when they make no sense."""

    warn_after_ns: int = 60_000_000_000
    """0: never."""
    shut_down_after_ns: int = 0
    """0: never; else not before a warning."""

    def __post_init__(self) -> None:
        if self.warn_after_ns < 0 or self.shut_down_after_ns < 0:
            raise ValueError("a stall lasts no negative time")
        if self.shut_down_after_ns and not 0 < self.warn_after_ns <= self.shut_down_after_ns:
            raise ValueError(
                f"shutting down after {self.shut_down_after_ns} ns of stall, without a warning before"
                f" (warn after {self.warn_after_ns} ns; 0 is never)"
            )


class StallClock:
    """Times names that wait. One per rank for its own cache hits; one at the coordinator for its table."""

    def __init__(self, limits: StallLimits) -> None:
        self.limits = limits
        self._since: dict[str, int] = {}
        self._told: set[str] = set()

    def due(self, waiting: Iterable[str], now_ns: int) -> frozenset[str]:
        """Names that must be told now: they have waited at least ``warn_after_ns`` and were not told before.

        The first of them waits for a tenth of that time longer, so that tensors that stall together are told
        together. To be called every cycle; a name that is no longer in ``waiting`` starts anew.
        """
        self._since = {name: self._since.get(name, now_ns) for name in waiting}
        self._told &= self._since.keys()
        limit = self.limits.warn_after_ns
        if not limit:
            return frozenset()
        late = {name: now_ns - since for name, since in self._since.items() if name not in self._told}
        if max(late.values(), default=0) < limit + limit // 10:
            return frozenset()
        told = frozenset(name for name, waited_ns in late.items() if waited_ns >= limit)
        self._told |= told
        return told

    def fatal(self, now_ns: int) -> frozenset[str]:
        """Names among those last observed that have waited so long that the job must end."""
        limit = self.limits.shut_down_after_ns
        return frozenset(name for name, since in self._since.items() if limit and now_ns - since >= limit)

    def waited_ns(self, names: Iterable[str], now_ns: int) -> int:
        """The longest that one of ``names`` has waited; those unknown count 0."""
        return max((now_ns - self._since.get(name, now_ns) for name in names), default=0)


@dataclass(frozen=True, slots=True)
class StallReport:
    """Who keeps which tensors waiting."""

    waited_ns: int
    """The longest wait of one of them."""
    missing: tuple[tuple[Ranges, tuple[str, ...]], ...]
    """(ranks, names that all of these and nobody else lack), by first rank; a rank may stand in several."""
    fatal: bool = False
    """The job ends because of it."""

    def by_rank(self) -> dict[int, list[str]]:
        """Per missing rank, ascending, the names it has not asked for, sorted; for small jobs."""
        found: dict[int, list[str]] = {}
        for ranks, names in self.missing:
            for first, last in ranks:
                for rank in range(first, last + 1):
                    found.setdefault(rank, []).extend(names)
        return {rank: sorted(found[rank]) for rank in sorted(found)}

    def text(self) -> str:
        """For people: bounded, whatever the number of ranks and tensors."""
        tensors = len({name for _, names in self.missing for name in names})
        lines = [
            f"stall: {tensors:,} tensor{'s' * (tensors != 1)} waited for {_seconds(self.waited_ns)}"
            + ("; shutting down" if self.fatal else "") + "; not asked for by:"
        ]  # fmt: skip
        for ranks, names in self.missing[:LINES_SHOWN]:
            more = f", ... ({len(names):,} in all)" if len(names) > NAMES_SHOWN else ""
            lines.append(f"  {spelled(ranks)}: {', '.join(names[:NAMES_SHOWN])}{more}")
        rest = self.missing[LINES_SHOWN:]
        if rest:
            lines.append(f"  and {sum(len(names) for _, names in rest):,} more tensors by other sets of ranks")
        return "\n".join(lines)


def stall_report(missing: Mapping[str, Ranges], waited_ns: int, fatal: bool = False) -> StallReport | None:
    """What to say about ``missing`` (name -> ranks that lack it); None when nobody lacks anything."""
    together: dict[Ranges, list[str]] = {}
    for name, ranks in missing.items():
        if ranks:
            together.setdefault(ranks, []).append(name)
    lines = tuple((ranks, tuple(together[ranks])) for ranks in sorted(together))
    return StallReport(waited_ns, lines, fatal) if lines else None


def _seconds(ns: int) -> str:
    return f"{ns // 10**9}.{ns // 10**8 % 10} s"
