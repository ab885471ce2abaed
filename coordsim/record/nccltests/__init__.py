"""Tables of nccl-tests (all_reduce_perf and its siblings): how long one collective takes, by size.

Text as the programs print it; lines of other origin between the rows (of mpirun, of NCCL_DEBUG) are passed over.
"""

from __future__ import annotations

from coordsim.record.nccltests.fragment import import_tables

__all__ = ["import_tables"]
