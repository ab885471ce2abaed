"""What ``coordsim report --json`` says of records or of an imported trace, without files and the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from coordsim.analyse.answer import Answer
from coordsim.analyse.answer.opened import answer_of
from coordsim.analyse.findings import find_out
from coordsim.record.ranks import RankRecord, merge_records
from coordsim.record.run_facts import RunFacts
from coordsim.record.store import Stored
from coordsim.record.trace import Trace
from coordsim.report.answer import answer_json


def answered(records: Sequence[RankRecord], steps: range | None = None) -> Answer:
    """The answer of ranks' records."""
    merged = merge_records(records, steps)
    return answer_of(Stored(merged.trace, merged.facts, find_out(merged, steps)))


def told(records: Sequence[RankRecord], steps: range | None = None) -> dict[str, Any]:
    """Of ranks' records."""
    return as_script_reads(answered(records, steps))


def told_of(trace: Trace | None, facts: RunFacts | None) -> dict[str, Any]:
    """Of an imported run."""
    assert trace is not None
    assert facts is not None
    return as_script_reads(answer_of(Stored(trace, facts, None)))


def as_script_reads(answer: Answer) -> dict[str, Any]:
    """The object of ``--json``."""
    plain: dict[str, Any] = json.loads(json.dumps(answer_json(answer), allow_nan=False))
    return plain
