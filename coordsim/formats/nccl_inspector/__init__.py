"""NCCL Inspector: what NCCL's profiler plug-in writes of each collective."""

from coordsim.formats.nccl_inspector.reader import import_dumps

__all__ = ["import_dumps"]
