"""Copies into and out of the fusion buffer (docs/semantics.md 6.1)."""

from __future__ import annotations

from coordsim.scenario.model import DataNetwork


def copy_ns(nbytes: int, tensors: int, data: DataNetwork) -> int:
    """Return the duration in ns of copying a response's tensors (``nbytes`` together) one way; 0 for a single one.

    Horovod >= 0.21 copies ``copy_batch`` tensors with one kernel (BatchedD2DMemcpy). Before that ``copy_batch`` is 1,
    with one cudaMemcpyAsync each. Raises ValueError for a response without tensors or a negative size.
    """
    if nbytes < 0 or tensors < 1:
        raise ValueError(f"a response has at least 1 tensor and 0 bytes, got {tensors} and {nbytes}")
    if tensors == 1:
        return 0
    kernels = -(-tensors // data.copy_batch)
    return kernels * data.copy_launch_ns + -(-nbytes * 1_000_000_000 // data.copy_bandwidth_Bps)
