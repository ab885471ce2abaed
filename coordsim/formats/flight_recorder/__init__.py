"""PyTorch Flight Recorder dumps: the last collectives of each rank, and which rank is behind.

Pickle files are read by an unpickler that builds lists, dicts and plain values, and nothing else.
"""

from __future__ import annotations

from coordsim.formats.flight_recorder.dumps import import_dumps

__all__ = ["import_dumps"]
