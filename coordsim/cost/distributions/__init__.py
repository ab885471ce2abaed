"""Named noise distributions as committed integer tables (docs/semantics.md 1.4): the same bits on every machine."""

from __future__ import annotations

from coordsim.cost.distributions.sampling import sample_q16, scaled_table
from coordsim.cost.distributions.table import NAMES, Table, load

__all__ = ["NAMES", "Table", "load", "sample_q16", "scaled_table"]
