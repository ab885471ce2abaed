"""What there is to find out about a recorded run: who was late, what each rank did, what would pay."""

from __future__ import annotations

from coordsim.analyse.advice import advice
from coordsim.analyse.rank_table import rank_table
from coordsim.analyse.step_kinds import step_kinds
from coordsim.analyse.stragglers import stragglers
from coordsim.record.findings import Findings
from coordsim.record.ranks.hosts import machines
from coordsim.record.ranks.merge import Merged


def find_out(merged: Merged, steps: range | None = None) -> Findings:
    """Analyse merged ranks' records. ``steps``: the steps that were asked for; stragglers are looked for in all of
    them, also where only a part could be merged."""
    late = stragglers(merged.records, steps)
    return Findings(
        stragglers=late, recommendation=advice(merged, late), rank_table=rank_table(merged),
        kinds=step_kinds(merged), machines=tuple(machines(merged.records)),
    )  # fmt: skip
