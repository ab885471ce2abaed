"""PyTorch profiler traces (Kineto's Chrome JSON) of one rank or many: steps, collectives, gradients.

Nothing in a file is ever executed or used as a path.
"""

from __future__ import annotations

from coordsim.formats.kineto.run import import_traces

__all__ = ["import_traces"]
