"""The result of ``DistributedDataParallel._get_ddp_logging_data()``, printed or saved: its buckets as a workload.

It is a dict of some 40 short values for each rank. Nothing in a file is executed.
"""

from __future__ import annotations

from coordsim.formats.ddp_logging.workload import import_logging_data

__all__ = ["import_logging_data"]
