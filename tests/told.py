"""What ``coordsim report --json`` says of records or of an imported trace, without files and the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from coordsim.analyse.findings import find_out
from coordsim.analyse.run_summary import run_summary
from coordsim.record.ranks import RankRecord, merge_records
from coordsim.record.run_facts import RunFacts
from coordsim.record.trace import Trace


def told(records: Sequence[RankRecord], steps: range | None = None) -> dict[str, Any]:
    """Of ranks' records."""
    merged = merge_records(records, steps)
    return _plain(run_summary(merged.trace, merged.facts, find_out(merged, steps)))


def told_of(trace: Trace | None, facts: RunFacts | None) -> dict[str, Any]:
    """Of an imported run."""
    assert trace is not None
    assert facts is not None
    return _plain(run_summary(trace, facts))


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """As a script reads it."""
    plain: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False))
    return plain
