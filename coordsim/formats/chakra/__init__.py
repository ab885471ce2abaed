"""Chakra execution traces: PyTorch's ExecutionTraceObserver (JSON) and the protobuf form (.et).

Such a trace is the graph of one iteration: what is computed and sent, hardly when.
"""

from __future__ import annotations

from coordsim.formats.chakra.executions import import_executions

__all__ = ["import_executions"]
