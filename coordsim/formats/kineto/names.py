"""Names of communication: events that are calls of a process group, kernels, and their operations.

Source: profiling titles and ``record_param_comms`` of PyTorch's ``ProcessGroup*.cpp`` (1.8 to 2.13), kernels' names of
NCCL 2.4 to 2.27, RCCL, oneCCL and HCCL.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

BARRIER = "barrier"
COALESCED = "coalesced"
POINT_TO_POINT = ("send", "recv", "send_recv")
TOGETHER = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
"""Operations that no rank ends before the last one has come."""
_OPERATIONS = (
    ("barrier", BARRIER), ("allreduce", "all_reduce"), ("reducescatter", "reduce_scatter"), ("allgather", "all_gather"),
    ("alltoall", "all_to_all"), ("broadcast", "broadcast"), ("bcast", "broadcast"), ("sendrecv", "send_recv"),
    ("batchisend", "send_recv"), ("receive", "recv"), ("recv", "recv"), ("send", "send"), ("scatter", "scatter"),
    ("gather", "gather"), ("reduce", "reduce"), ("coalesc", COALESCED),
)  # fmt: skip
"""Letters of a name -> operation; the first match counts."""
_LETTERS = re.compile(r"[^a-z]")
_BACKEND = re.compile(r"([a-z]*ccl[a-z]{0,4}[0-9]{0,2}|gloo|mpi|ucc):{1,2}(\w.*)", re.DOTALL)
"""Matches ``nccl:all_reduce``, ``nccl2:all_reduce``, ``hccl:allgather``, ``xccl::allreduce``, ``ucc:...``."""
_OTHER_BACKEND = re.compile(
    r"([a-z][a-z0-9_]{1,15}):(_?(?:all_?reduce|all_?gather|reduce_?scatter|all_?to_?all|broadcast)\w*)"
)
_DISPATCHED = re.compile(r"_?c10d\w{0,30}::(\w+)")
_KERNEL = re.compile(
    r"(?:void )?(?:[\w() ]{1,40}::){0,4}_?(?:nccl|rccl|hccl|xccl|oneccl|mccl|msccl|hcom_)", re.IGNORECASE
)
_ALGORITHM = re.compile(
    r"(?:void )?(?:[\w() ]{1,40}::){0,4}(?:AllReduce|AllGather|ReduceScatter|Broadcast|Reduce|SendRecv|AllToAll\w*)"
    r"_(?:RING|TREE|COLLNET|NVLS|PAT|LL|SIMPLE)"
)
_LIKE_COMMUNICATION = re.compile(
    r"all_?reduce|all_?gather|reduce_?scatter|all_?to_?all|cross_device_reduce|nvshmem", re.IGNORECASE
)
_ON_CPU = ("gloo", "mpi", "ucc")


class Title(NamedTuple):
    """A call's annotation by its backend."""

    backend: str
    operation: str | None


@lru_cache(maxsize=4096)
def operation_of(name: str) -> str | None:
    """Return the operation that a call's name means; None for ``wait`` and names that move nothing between ranks."""
    letters = _LETTERS.sub("", name.lower())
    return next((operation for part, operation in _OPERATIONS if part in letters), None)


@lru_cache(maxsize=4096)
def title_of(name: str) -> Title | None:
    """Split ``backend:operation``; None for a name that is no call of a known kind of backend."""
    match = _BACKEND.match(name)
    return Title(match[1], operation_of(match[2])) if match else None


@lru_cache(maxsize=4096)
def dispatched(name: str) -> str | None:
    """Return what follows ``c10d::`` or ``_c10d_functional::``; None for another operator."""
    match = _DISPATCHED.match(name)
    return match[1] if match else None


@lru_cache(maxsize=4096)
def is_kernel(name: str) -> bool:
    """Return whether a device's activity is one of a library for collectives."""
    return bool(_KERNEL.match(name) or _ALGORITHM.match(name))


@lru_cache(maxsize=4096)
def looks_like_communication(name: str) -> bool:
    """Return whether a name that no rule knows still suggests communication, so that it is reported as left out."""
    return bool(_LIKE_COMMUNICATION.search(name) or _OTHER_BACKEND.fullmatch(name))


def kernel_operation(name: str) -> str | None:
    """Return the operation in a kernel's name; None for ``ncclDevKernel_Generic`` and the like."""
    return operation_of(name.partition("(")[0].partition("<")[0])


def times_on_cpu(backend: str) -> bool:
    """Return whether the backend's annotation spans the transfer itself. Others span only its submission to a
    device."""
    return backend in _ON_CPU
