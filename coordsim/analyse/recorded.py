"""Ranks' records as a run: the merged trace, and all that is known of it, with what it advises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coordsim.analyse.advice import advice
from coordsim.analyse.rank_table import rank_table
from coordsim.analyse.step_kinds import step_kinds
from coordsim.analyse.stragglers import stragglers
from coordsim.record.ranks import RankRecord
from coordsim.record.ranks.facts import facts_of
from coordsim.record.ranks.hosts import machines
from coordsim.record.ranks.merge import merge_records
from coordsim.record.trace import Trace, TraceWriter


def merged_run(records: Sequence[RankRecord], steps: range | None = None) -> tuple[Trace, dict[str, Any]]:
    """Trace and facts for a manifest. Raises InputError when no step can be merged."""
    merged = merge_records(records, steps)
    found = stragglers(merged.records, steps)
    return merged.trace, merged.facts | {
        "recommendation": advice(merged, found), "stragglers": found, "rank_table": rank_table(merged),
        "kinds": step_kinds(merged), "machines": [machine._asdict() | {"crowded": machine.crowded,
        "oversubscribed": machine.oversubscribed} for machine in machines(merged.records)],
    }  # fmt: skip


def empty(records: Sequence[RankRecord]) -> tuple[Trace, dict[str, Any]]:
    """The same of records in which no rank ended a step."""
    return TraceWriter().finish(), facts_of(records, range(0), [record.rank for record in records], ())
