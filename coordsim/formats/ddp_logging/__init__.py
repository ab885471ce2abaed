"""What ``DistributedDataParallel._get_ddp_logging_data()`` returns, printed or saved: its buckets as a workload.

A dict of some 40 short values for each rank. Nothing in a file is executed.
"""

from __future__ import annotations

from coordsim.formats.ddp_logging.workload import import_logging_data

__all__ = ["import_logging_data"]
