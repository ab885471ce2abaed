"""The meaning of each event of a trace, and what of it is kept: steps, gradients, calls, kernels.

Sources: Kineto's ``output_json.cpp`` (every version since PyTorch 1.8), ``torch/csrc/autograd/profiler_kineto.cpp``,
torch_npu's ``trace_view.json``. Only the few events that are needed must be well formed; others are passed over,
whatever they contain.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from coordsim.formats.kineto.event_parts import EventParts
from coordsim.formats.kineto.fields import args_of, external_of, group_of, whole_of
from coordsim.formats.kineto.names import (
    dispatched,
    is_kernel,
    kernel_operation,
    looks_like_communication,
    operation_of,
    title_of,
)
from coordsim.formats.kineto.raw import METADATA, OPERATOR, TITLE, Gradient, Kernel, Mark, Process, Record, Span
from coordsim.formats.kineto.sizes import NOTHING, from_metadata, from_shapes
from coordsim.formats.shared.torch_types import TYPES, numel_of

LONGEST_NAME = 160
"""Number of characters of a name that are examined; kernels' names end in their template arguments."""
_EVALUATE = "autograd::engine::evaluate_function: "
_ACCUMULATE = "torch::autograd::AccumulateGrad"
_STEP = re.compile(r"ProfilerStep#([0-9]{1,12})")
_INTERESTING = re.compile(
    r"ProfilerStep#|Optimizer\.|_?c10d|record_param_comms|autograd::engine::evaluate_function: |"
    r"torch::autograd::AccumulateGrad|\w{1,80}Backward[0-9]{0,3}$|DistributedDataParallel\.forward|"
    r"FullyShardedDataParallel\.forward|FSDP::root_pre_forward|enumerate\(DataLoader\)|\w{2,20}:\w"
)
_RANK = re.compile(r"\brank[ _:-]{0,2}([0-9]{1,6})\b", re.IGNORECASE)
_RUNTIME = frozenset((
    "cuda_runtime", "runtime", "cuda_driver", "driver", "xpu_runtime", "xpu_driver", "mtia_runtime",
    "privateuse1_runtime", "privateuse1_driver",
))  # fmt: skip
_HOST = frozenset(("cpu_op", "operator", "user_annotation"))
_DEVICE = frozenset(("kernel", "collective_comm", "mtia_ccp_events", "concurrent_kernel", "communication"))
_PASSED_OVER = frozenset((
    "python_function", "gpu_memcpy", "memcpy", "gpu_memset", "memset", "overhead", "cuda_sync", "cuda_profiler_range",
))  # fmt: skip
OF_THE_PROFILER = _RUNTIME | _HOST | _DEVICE | _PASSED_OVER | {"trace", "gpu_user_annotation"}
"""Categories of the profiler's events."""


class EventKeeper(EventParts):
    """Takes events in the file's order; call :meth:`settle` after the last one."""

    def __init__(self, path: Path, room: int) -> None:
        super().__init__(path, room)
        self._stray: list[tuple[Process | None, Kernel]] = []
        """Kernels of files with several processes, with the process whose events stand before them."""
        self._stray_steps: list[tuple[Process | None, Mark]] = []
        self._ranks_by_pid: dict[str, int] = {}

    def take(self, event: dict[str, Any]) -> None:
        """Keep what a run is made of. Raises InputError for a step without times, and when there is no room."""
        phase = event.get("ph")
        if phase != "X":
            if phase == "M" and event.get("name") == "process_name":
                self._named(event)
            return
        name, category = event.get("name"), event.get("cat")
        if type(name) is not str or name.startswith("aten::"):
            return  # most events are operators that tell nothing of a step
        kind = category.lower() if type(category) is str else None
        if kind in _PASSED_OVER:
            return
        name = name[:LONGEST_NAME]
        if kind in _HOST:
            if _INTERESTING.match(name):
                self._host(event, name)
        elif kind in _RUNTIME:
            self._launch(event, name)
        elif kind == "gpu_user_annotation":
            if match := _STEP.fullmatch(name):
                self._stray_steps.append((self.process, self.mark(event, name, int(match[1]))))
        elif kind == "trace":
            self._window(event)
        elif is_kernel(name):
            self._kernel(event, name)
        elif kind in _DEVICE:
            if looks_like_communication(name):
                self.leave_out(name.removeprefix("void ").partition("<")[0][:60])
        elif kind is None and _INTERESTING.match(name):
            self._host(event, name)

    def _named(self, event: dict[str, Any]) -> None:
        """Take note of ``RANK 3 - CPU``, as tools that join ranks call a process."""
        said = args_of(event).get("name")
        if isinstance(said, str) and (match := _RANK.search(said[:200])):
            self._ranks_by_pid[str(event.get("pid"))[:40]] = int(match[1])

    def _host(self, event: dict[str, Any], name: str) -> None:
        first = name[0]
        if first == "P" and (match := _STEP.fullmatch(name)):
            self.keep(self.owner(event).steps, self.mark(event, name, int(match[1])))
        elif first == "O":
            self._optimizer(event, name)
        elif name == _ACCUMULATE:
            self._gradient(event)
        elif name.startswith(_EVALUATE):
            self._node(event, name.removeprefix(_EVALUATE), True)
        elif "Backward" in name:
            self._node(event, name, False)
        elif first in "_c" and (operator := dispatched(name)):
            self._operator(event, name, operator)
        elif name == "record_param_comms":
            self._metadata(event)
        elif first in "DF" and name.endswith(".forward"):
            self._spanned(event, "forwards")
        elif name == "FSDP::root_pre_forward":
            if (span := self.span(event)) is not None:
                self.keep(self.owner(event).roots, span.begin_ns)
        elif name.startswith("enumerate(DataLoader)"):
            self._spanned(event, "loaders")
        else:
            self._title(event, name)

    def _optimizer(self, event: dict[str, Any], name: str) -> None:
        into = "optimizers" if name.startswith("Optimizer.step") else "zero_grads"
        if into == "zero_grads" and not name.startswith("Optimizer.zero_grad"):
            return
        if (span := self.span(event)) is not None:
            self.keep(getattr(self.owner(event), into), Mark(*span, name[:120]))

    def _spanned(self, event: dict[str, Any], into: str) -> None:
        if (span := self.span(event)) is not None:
            self.keep(getattr(self.owner(event), into), span)

    def _node(self, event: dict[str, Any], name: str, evaluated: bool) -> None:
        """Keep a node of backward. What it runs repeats its name, and is the node in versions before 1.11."""
        owner = self.owner(event)
        owner.nodes.evaluated |= evaluated
        if evaluated or not owner.nodes.evaluated:
            span = self.span(event)
            if span is not None:
                self.use_room()
                owner.nodes.add(span, name)

    def _gradient(self, event: dict[str, Any]) -> None:
        """Keep a gradient; without recorded shapes it is only a node of backward."""
        span = self.span(event)
        if span is None:
            return
        owner, args = self.owner(event), args_of(event)
        if not (owner.nodes.evaluated and _ACCUMULATE in owner.nodes.names):
            self.use_room()
            owner.nodes.add(span, f"{_ACCUMULATE} alone")
        dims, kinds = args.get("Input Dims", args.get("Input dims")), args.get("Input type")
        if not isinstance(dims, list) or not isinstance(kinds, list) or not dims or not kinds:
            return
        kind = TYPES.get(str(kinds[0]).lower())
        if kind is not None and numel_of(dims[0]) is not None:
            self.keep(owner.gradients, Gradient(span.end_ns, tuple(dims[0]), kind[0]))
        else:
            self.leave_out("gradients without a shape, as sparse ones are")

    # Calls.

    def _operator(self, event: dict[str, Any], name: str, operator: str) -> None:
        operation = operation_of(operator)
        if operation is None:
            if "wait" not in operator:
                self.leave_out(name[:80])
            return
        args = args_of(event)
        self._record(event, OPERATOR, operation, "", args, from_shapes(args, operator))

    def _metadata(self, event: dict[str, Any]) -> None:
        args = args_of(event)
        name = args.get("Collective name")
        operation = operation_of(name) if isinstance(name, str) else None
        if isinstance(name, str) and operation is None:
            return  # "wait", "init" and the like
        known = from_metadata(args)
        if known.put_in is None or known.element_bytes is None:
            known = known.or_else(from_shapes(args, None))
        self._record(event, METADATA, operation, "", args, known)

    def _title(self, event: dict[str, Any], name: str) -> None:
        title = title_of(name)
        if title is None or title.operation is None:
            if looks_like_communication(name) or title is not None:
                self.leave_out(name[:80])
            return
        args = args_of(event)
        self._record(event, TITLE, title.operation, title.backend, args, from_shapes(args, None))

    def _record(
        self, event: dict[str, Any], kind: int, operation: str | None, backend: str, args: dict[str, Any], known: Any
    ) -> None:
        span = self.span(event)
        if span is not None:
            thread = self.thread(event)
            self.keep(self.owner(event).records, Record(
                thread, *span, kind, operation, backend, known, external_of(args), group_of(args),
            ))  # fmt: skip

    # The device.

    def _launch(self, event: dict[str, Any], name: str) -> None:
        if "aunch" not in name and "mtia" not in str(event.get("cat")):
            return
        correlation = whole_of(args_of(event).get("correlation"))
        at_ns = self.ns(event.get("ts"))
        if correlation is not None and at_ns is not None:
            self.owner(event).launches.add(correlation, at_ns, self.thread(event))

    def _kernel(self, event: dict[str, Any], name: str) -> None:
        span = self.span(event)
        if span is None:
            return
        args = args_of(event)
        called = args.get("Collective name")
        operation = operation_of(called) if isinstance(called, str) else None
        kernel = Kernel(
            *span, name.partition("(")[0][:80], operation or kernel_operation(name), str(event.get("pid"))[:40],
            str(event.get("tid"))[:40], whole_of(args.get("correlation")), external_of(args),
            from_metadata(args) if "dtype" in args else NOTHING, group_of(args),
        )  # fmt: skip
        rank = whole_of(args.get("rank"))
        self.use_room()
        owner = self.processes.get(("rank", rank)) if rank is not None else self.process
        self._stray.append((owner, kernel))

    def _window(self, event: dict[str, Any]) -> None:
        """Keep the profiler's own span of the recording."""
        begin, length = self.ns(event.get("ts")), self.length(event.get("dur"))
        if begin is not None and length is not None and self.trace.window is None:
            self.trace.window = Span(begin, begin + length)

    def settle(self) -> None:
        """Assign each kernel to its process: the only one, the one that launched it, else the one it stands behind."""
        trace = self.trace
        trace.processes = list(self.processes.values())
        if not trace.processes:
            trace.processes = [Process("")]
        for process in trace.processes:
            if process.rank is None and len(trace.processes) > 1:
                process.rank = self._ranks_by_pid.get(process.pid)
        for owner, mark in self._stray_steps:
            (owner or trace.processes[0]).device_steps.append(mark)
        if len(trace.processes) == 1:
            for _, kernel in self._stray:
                trace.processes[0].kernels.append(kernel)
            return
        launched = [(process, set(process.launches.correlation)) for process in trace.processes]
        for before, kernel in self._stray:
            owners = [process for process, ids in launched if kernel.correlation in ids]
            owner = before if before in owners or not owners else owners[0]
            if len(owners) == 1:
                owner = owners[0]
            (owner or trace.processes[0]).kernels.append(kernel)
