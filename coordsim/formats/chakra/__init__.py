"""Chakra execution traces: PyTorch's ExecutionTraceObserver (JSON) and the protobuf form (.et).

Such a trace is the graph of one iteration: it states what is computed and sent, but hardly when.
"""

from __future__ import annotations

from coordsim.formats.chakra.executions import import_executions

__all__ = ["import_executions"]
