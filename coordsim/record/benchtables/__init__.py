"""Tables that benchmarks of collectives print (nccl-tests, gloo's benchmark): how long one collective takes, by size.

Text as the programs print it, and the JSON of nccl-tests; lines of other origin in between (of mpirun, of NCCL_DEBUG)
are passed over.
"""

from __future__ import annotations

from coordsim.record.benchtables.fragment import import_tables

__all__ = ["import_tables"]
