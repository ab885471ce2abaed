"""Logs that NCCL and RCCL write with NCCL_DEBUG=INFO."""

from coordsim.formats.nccl_debug.reader import import_logs

__all__ = ["import_logs"]
