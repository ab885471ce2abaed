"""Horovod's timeline files: rank 0's Chrome trace of negotiations and operations, read and written.

The format is that of horovod/common/timeline.cc (docs/horovod.md 6). Nothing in a file is ever executed or
used as a path.
"""

from coordsim.formats.horovod.events import EventKind, TimelineEvent
from coordsim.formats.horovod.reader import TimelineReader
from coordsim.formats.horovod.writer import TimelineWriter

__all__ = ["EventKind", "TimelineEvent", "TimelineReader", "TimelineWriter"]
