"""Profiler traces made in the test: events as Kineto writes them, of as few steps and ranks as a test needs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coordsim.formats.imported import Imported
from coordsim.formats.kineto import import_traces

DATA = Path(__file__).parents[2] / "data" / "kineto"
Event = dict[str, Any]
KERNEL = "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
STEP_US = 10_000.0


def event(category: str, name: str, ts: Any, dur: Any = 50.0, *, pid: Any = 7, tid: Any = 7, **args: Any) -> Event:
    """One complete event; ``args`` with underscores for spaces."""
    named = {key.replace("_", " "): value for key, value in args.items()}
    return {"ph": "X", "cat": category, "name": name, "pid": pid, "tid": tid, "ts": ts, "dur": dur, "args": named}


def step(number: int, ts: float, dur: float = STEP_US - 100, **place: Any) -> Event:
    """A step of the profiler."""
    return event("user_annotation", f"ProfilerStep#{number}", ts, dur, **place)


def nccl_call(
    ts: float, values: int, external: int, *, kernel_at: float | None = None, name: str = KERNEL, pid: Any = 7,
    metadata: bool = True, device: Any = 0, lasts: float = 1500.0, group: int = 8, sequence: int | None = None,
) -> list[Event]:  # fmt: skip
    """One all-reduce as PyTorch 2.x records it: operator, metadata, annotation, launch and kernel."""
    said = {"Collective_name": "allreduce", "In_msg_nelems": values, "Out_msg_nelems": values, "Group_size": group,
            "dtype": "Float"} if metadata else {}  # fmt: skip
    if sequence is not None:
        said |= {"Seq": sequence, "Process_Group_Name": "0"}
    shapes = {"Input_Dims": [[[values]], [], []], "Input_type": ["TensorList", "", "Scalar"]}
    call = [
        event("cpu_op", "c10d::allreduce_", ts, 60.0, pid=pid, External_id=external, **shapes),
        event("cpu_op", "record_param_comms", ts + 10, 40.0, pid=pid, External_id=external + 1, **said),
        event("user_annotation", "nccl:all_reduce", ts + 12, 30.0, pid=pid, External_id=external + 2,
              Input_Dims=[[values]], Input_type=["float"]),
    ]  # fmt: skip
    if kernel_at is None:
        return call
    return [
        *call,
        event("cuda_runtime", "cudaLaunchKernelExC", ts + 20, 8.0, pid=pid, correlation=external),
        event("kernel", name, kernel_at, lasts, pid=device, tid=20, correlation=external, stream=20),
    ]


def trace(events: list[Event], rank: int | None = 0, world: int = 8, **more: Any) -> dict[str, Any]:
    """A file's object."""
    distributed = {"distributedInfo": {"backend": "nccl", "rank": rank, "world_size": world, "pg_config": [
        {"pg_name": "0", "ranks": list(range(world))},
    ]}} if rank is not None else {}  # fmt: skip
    return {"schemaVersion": 1, **distributed, "host_name": "node0", **more, "traceEvents": events}


def write(path: Path, found: Any) -> Path:
    """``found`` as a file."""
    path.write_text(json.dumps(found))
    return path


def read(path: Path, found: Any) -> Imported:
    """What the import makes of one file that holds ``found``."""
    return import_traces([write(path, found)])


def events_of(found: dict[str, Any], start: str) -> Iterator[Event]:
    """The complete events whose name begins so."""
    return (one for one in found["traceEvents"] if one.get("ph") == "X" and str(one["name"]).startswith(start))
