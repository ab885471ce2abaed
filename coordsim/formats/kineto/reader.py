"""Reads one trace file through a rolling buffer, and keeps what a run is made of.

Sources: Kineto's ``output_json.cpp`` (every version since PyTorch 1.8), ``torch/csrc/autograd/profiler_kineto.cpp``,
torch_npu's ``trace_view.json``. ``ts`` is in us since 1970, since boot, or since ``baseTimeNanoseconds``; a number or
text. Nothing but the few events that are needed must be well formed; others are passed over whatever they hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from coordsim.errors import InputError
from coordsim.formats.kineto.fields import (
    LONGEST_US,
    MOST_RANKS,
    args_of,
    decimal_ns,
    external_of,
    group_of,
    ranks_of,
    whole_of,
)
from coordsim.formats.kineto.names import (
    dispatched,
    is_kernel,
    kernel_operation,
    looks_like_communication,
    operation_of,
    title_of,
)
from coordsim.formats.kineto.raw import (
    METADATA,
    MOST_LAUNCHES,
    OPERATOR,
    SINCE_1970_NS,
    TITLE,
    Gradient,
    Kernel,
    Mark,
    Process,
    RawTrace,
    Record,
    Span,
    move,
)
from coordsim.formats.kineto.sizes import NOTHING, from_metadata, from_shapes
from coordsim.formats.shared.json_text import JsonText, elements, members
from coordsim.formats.shared.torch_types import TYPES, numel_of

EXPECTED = "expected a trace of PyTorch's profiler: an object with traceEvents"
MOST_KEPT = 1 << 20
"""Collectives, gradients and marks of one file, and collectives of all files; a longer recording has to be split."""
_MOST_PROCESSES = 1 << 12
_MOST_THREADS = 1 << 16
_MOST_NAMES = 1000
_LONGEST_NAME = 160
"""Of a name that is looked at; kernels' end in their template arguments."""
_EVALUATE = "autograd::engine::evaluate_function: "
_ACCUMULATE = "torch::autograd::AccumulateGrad"
LONGEST_EVENT = 1 << 23
"""Characters; a foreach optimizer's event has shapes and strides of thousands of parameters."""
_STEP = re.compile(r"ProfilerStep#([0-9]{1,12})")
_INTERESTING = re.compile(
    r"ProfilerStep#|Optimizer\.|_?c10d|record_param_comms|autograd::engine::evaluate_function: |"
    r"torch::autograd::AccumulateGrad|\w{1,80}Backward[0-9]{0,3}$|DistributedDataParallel\.forward|"
    r"FullyShardedDataParallel\.forward|FSDP::root_pre_forward|enumerate\(DataLoader\)|\w{2,20}:\w"
)
_SURELY = re.compile(r"aten::|ProfilerStep#|Optimizer\.|_?c10d|record_param_comms|autograd::engine::|torch::autograd::")
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

_OF_THE_PROFILER = _RUNTIME | _HOST | _DEVICE | _PASSED_OVER | {"trace", "gpu_user_annotation"}
_ITS_MEMBERS = frozenset((
    "schemaVersion", "deviceProperties", "distributedInfo", "baseTimeNanoseconds", "record_shapes",
))  # fmt: skip
"""What PyTorch's profiler writes beside its events, and other writers of Chrome's format do not."""
_MOST_CATEGORIES = 4


def read_trace(path: Path, room: int = MOST_KEPT) -> RawTrace:
    """One file, up to where it is whole. Raises InputError, with file and event, for what is no trace."""
    return _Reader(path, room).read()


class _Reader:
    def __init__(self, path: Path, room: int) -> None:
        self._trace = RawTrace(path.name)
        self._where = str(path)
        self._text = JsonText(path, EXPECTED, limit=LONGEST_EVENT)
        self._room = room
        self._base_ns = 0
        self._late_base_ns = 0
        self._by_key: dict[Any, Process] = {}
        self._process: Process | None = None
        """Whose event came last."""
        self._stray: list[tuple[Process | None, Kernel]] = []
        """Kernels of files with several processes, with the process whose events stand before them."""
        self._ranks_by_pid: dict[str, int] = {}
        self._stray_steps: list[tuple[Process | None, Mark]] = []
        self._known = False
        """Whether anything told that the file is of PyTorch's profiler."""
        self._categories: dict[str, int] = {}
        """Categories of events until that was known."""

    def read(self) -> RawTrace:
        """The whole file."""
        trace, present = self._trace, False
        for key, value in self._pairs():
            self._known = self._known or key in _ITS_MEMBERS
            if key == "traceEvents":
                trace.events += 1
                if not isinstance(value, dict):
                    self._wrong(value, f"is no object; {EXPECTED}")
                present = present or "ph" in value
                if not self._known:
                    self._recognise(value)
                self._event(value)
            elif key == "distributedInfo":
                self._distributed(value)
            elif key == "host_name" and isinstance(value, str):
                trace.host = value[:200]
            elif key == "record_shapes":
                trace.shapes = bool(value)
            elif key == "baseTimeNanoseconds":
                if type(value) is str and len(value) < 20 and value.isascii() and value.isdecimal():
                    value = int(value)
                if type(value) is not int or not 0 <= value < 1 << 62:
                    raise InputError.one(self._where, key, str(value)[:40], "is no whole number of ns")
                self._rebase(value)
        trace.lost, trace.characters = self._text.lost, self._text.place
        if not present:
            raise InputError.one(self._where, "traceEvents", None, f"holds no event; {EXPECTED}")
        if not self._known:
            listed = ", ".join(f"{count:,} of category {name!r}" for name, count in self._categories.items())
            message = f"none of its {trace.events:,} events is one of PyTorch's profiler{f' ({listed})' * bool(listed)}"
            raise InputError.one(self._where, "traceEvents", None, f"{message}; {EXPECTED}")
        trace.processes = list(self._by_key.values())
        self._settle()
        if self._late_base_ns:
            move(trace, self._late_base_ns)
        return trace

    def _recognise(self, event: dict[str, Any]) -> None:
        """Whether an event is one that PyTorch's profiler writes, by its category, else by its name."""
        name, category = event.get("name"), event.get("cat")
        kind = category.lower() if type(category) is str else None
        named = type(name) is str and (_SURELY.match(name[:_LONGEST_NAME]) or is_kernel(name[:_LONGEST_NAME]))
        self._known = kind in _OF_THE_PROFILER or bool(named)
        if not self._known and kind is not None:
            counts, kind = self._categories, kind[:40]
            if kind in counts or len(counts) < _MOST_CATEGORIES:
                counts[kind] = counts.get(kind, 0) + 1

    def _pairs(self) -> Iterator[tuple[str, Any]]:
        """The file's members, events one by one; Chrome's other form is a bare list of events."""
        if self._text.next_character() == "[":
            return (("traceEvents", event) for event in elements(self._text))
        return members(self._text, frozenset({"traceEvents"}))

    def _rebase(self, base_ns: int) -> None:
        """Kineto writes ``baseTimeNanoseconds`` before the events; tools that rewrite traces put it behind them."""
        if not self._trace.events:
            self._base_ns = base_ns
        else:
            self._late_base_ns = base_ns

    def _named(self, event: dict[str, Any]) -> None:
        """``RANK 3 - CPU``: how tools that join ranks call a process."""
        said = args_of(event).get("name")
        if isinstance(said, str) and (match := _RANK.search(said[:200])):
            self._ranks_by_pid[str(event.get("pid"))[:40]] = int(match[1])

    # What stands beside the events.

    def _distributed(self, value: Any) -> None:
        where = "distributedInfo"
        if not isinstance(value, dict):
            raise InputError.one(self._where, where, str(value)[:40], "is no object")
        numbers: dict[str, int | None] = {}
        for key in ("rank", "world_size"):
            number = value.get(key)
            if isinstance(number, str) and len(number) < 8 and number.isascii() and number.isdecimal():
                number = int(number)
            if number is not None and (type(number) is not int or not 0 <= number <= MOST_RANKS):
                raise InputError.one(self._where, f"{where}.{key}", str(number)[:40], "is no number of a rank")
            numbers[key] = number
        trace = self._trace
        trace.rank, trace.world_size = numbers["rank"], numbers["world_size"]
        trace.backend = str(value["backend"])[:40] if value.get("backend") is not None else None
        groups = value.get("pg_config")
        if isinstance(groups, list):
            trace.group_count = len(groups)
            trace.groups = {}
            for one in groups:
                ranks = ranks_of(one.get("ranks")) if isinstance(one, dict) else None
                if ranks is not None:
                    trace.groups[str(one.get("pg_name"))[:80]] = ranks

    # Events.

    def _event(self, event: dict[str, Any]) -> None:
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
        name = name[:_LONGEST_NAME]
        if kind in _HOST:
            if _INTERESTING.match(name):
                self._host(event, name)
        elif kind in _RUNTIME:
            self._launch(event, name)
        elif kind == "gpu_user_annotation":
            if match := _STEP.fullmatch(name):
                self._stray_steps.append((self._process, self._mark(event, name, int(match[1]))))
        elif kind == "trace":
            self._window(event)
        elif is_kernel(name):
            self._kernel(event, name)
        elif kind in _DEVICE:
            if looks_like_communication(name):
                self._leave_out(name.removeprefix("void ").partition("<")[0][:60])
        elif kind is None and _INTERESTING.match(name):
            self._host(event, name)

    def _host(self, event: dict[str, Any], name: str) -> None:
        first = name[0]
        if first == "P" and (match := _STEP.fullmatch(name)):
            self._keep(self._owner(event).steps, self._mark(event, name, int(match[1])))
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
            if (span := self._span(event)) is not None:
                self._keep(self._owner(event).roots, span.begin_ns)
        elif name.startswith("enumerate(DataLoader)"):
            self._spanned(event, "loaders")
        else:
            self._title(event, name)

    def _optimizer(self, event: dict[str, Any], name: str) -> None:
        into = "optimizers" if name.startswith("Optimizer.step") else "zero_grads"
        if into == "zero_grads" and not name.startswith("Optimizer.zero_grad"):
            return
        if (span := self._span(event)) is not None:
            self._keep(getattr(self._owner(event), into), Mark(*span, name[:120]))

    def _spanned(self, event: dict[str, Any], into: str) -> None:
        if (span := self._span(event)) is not None:
            self._keep(getattr(self._owner(event), into), span)

    def _node(self, event: dict[str, Any], name: str, evaluated: bool) -> None:
        """A node of backward; what it runs repeats its name, and is the node in versions before 1.11."""
        owner = self._owner(event)
        owner.nodes.evaluated |= evaluated
        if evaluated or not owner.nodes.evaluated:
            span = self._span(event)
            if span is not None:
                self._use_room()
                owner.nodes.add(span, name)

    def _gradient(self, event: dict[str, Any]) -> None:
        """Without recorded shapes it is a node of backward and nothing more."""
        span = self._span(event)
        if span is None:
            return
        owner, args = self._owner(event), args_of(event)
        if not (owner.nodes.evaluated and _ACCUMULATE in owner.nodes.names):
            self._use_room()
            owner.nodes.add(span, f"{_ACCUMULATE} alone")
        dims, kinds = args.get("Input Dims", args.get("Input dims")), args.get("Input type")
        if not isinstance(dims, list) or not isinstance(kinds, list) or not dims or not kinds:
            return
        kind = TYPES.get(str(kinds[0]).lower())
        if kind is not None and numel_of(dims[0]) is not None:
            self._keep(owner.gradients, Gradient(span.end_ns, tuple(dims[0]), kind[0]))
        else:
            self._leave_out("gradients without a shape, as sparse ones are")

    # Calls.

    def _operator(self, event: dict[str, Any], name: str, operator: str) -> None:
        operation = operation_of(operator)
        if operation is None:
            if "wait" not in operator:
                self._leave_out(name[:80])
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
        if known.put_in is None or known.each is None:
            known = known.or_else(from_shapes(args, None))
        self._record(event, METADATA, operation, "", args, known)

    def _title(self, event: dict[str, Any], name: str) -> None:
        title = title_of(name)
        if title is None or title.operation is None:
            if looks_like_communication(name) or title is not None:
                self._leave_out(name[:80])
            return
        args = args_of(event)
        self._record(event, TITLE, title.operation, title.backend, args, from_shapes(args, None))

    def _record(
        self, event: dict[str, Any], kind: int, operation: str | None, backend: str, args: dict[str, Any], known: Any
    ) -> None:
        span = self._span(event)
        if span is not None:
            thread = self._thread(event)
            self._keep(self._owner(event).records, Record(
                thread, *span, kind, operation, backend, known, external_of(args), group_of(args),
            ))  # fmt: skip

    # The device.

    def _launch(self, event: dict[str, Any], name: str) -> None:
        if "aunch" not in name and "mtia" not in str(event.get("cat")):
            return
        correlation = whole_of(args_of(event).get("correlation"))
        at_ns = self._ns(event.get("ts"))
        if correlation is not None and at_ns is not None:
            self._owner(event).launches.add(correlation, at_ns, self._thread(event))

    def _kernel(self, event: dict[str, Any], name: str) -> None:
        span = self._span(event)
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
        self._use_room()
        owner = self._by_key.get(("rank", rank)) if rank is not None else self._process
        self._stray.append((owner, kernel))

    def _settle(self) -> None:
        """Give each kernel to its process: the only one, the one that launched it, else the one it stands behind."""
        trace = self._trace
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

    def _window(self, event: dict[str, Any]) -> None:
        """The profiler's own span of the recording."""
        begin, length = self._ns(event.get("ts")), self._length(event.get("dur"))
        if begin is not None and length is not None and self._trace.window is None:
            self._trace.window = Span(begin, begin + length)

    # Parts of an event.

    def _owner(self, event: dict[str, Any]) -> Process:
        args = event.get("args")
        rank = whole_of(args.get("rank")) if isinstance(args, dict) and "rank" in args else None
        key: Any = ("rank", rank) if rank is not None else event.get("pid")
        try:
            process = self._by_key.get(key)
        except TypeError:  # a list as a pid
            key = str(key)[:40]
            process = self._by_key.get(key)
        if process is None:
            if len(self._by_key) >= _MOST_PROCESSES:
                self._wrong(key, f"is of one more process than {_MOST_PROCESSES:,}")
            process = self._by_key[key] = Process(str(event.get("pid"))[:40], rank)
        self._process = process
        return process

    def _thread(self, event: dict[str, Any]) -> int:
        key = (str(event.get("pid"))[:40], str(event.get("tid"))[:40])
        threads = self._trace.threads
        if len(threads) >= _MOST_THREADS:
            return threads.get(key, -1)
        return threads.setdefault(key, len(threads))

    def _mark(self, event: dict[str, Any], name: str, number: int) -> Mark:
        """A step: the one event without whose times nothing can be said."""
        begin = self._ns(event.get("ts"))
        if begin is None:
            self._wrong(event.get("ts"), 'has no time as "ts"')
        length = self._length(event.get("dur"))
        if length is None:
            self._wrong(event.get("dur"), 'has no time as "dur"')
        return Mark(begin, begin + length, name, number)

    def _span(self, event: dict[str, Any]) -> Span | None:
        begin, length = self._ns(event.get("ts")), self._length(event.get("dur"))
        if begin is None or length is None:
            self._leave_out('events without a time as "ts" or "dur"')
            return None
        return Span(begin, begin + length)

    def _ns(self, value: Any) -> int | None:
        """A time in us, a number or text, as ns on the file's clock."""
        kind = type(value)
        ns: int | None = None
        if (kind is float or kind is int) and -LONGEST_US < value < LONGEST_US:
            ns = round(value * 1000)
        elif kind is str and len(value) < 40:
            ns = decimal_ns(value)
        return ns if ns is None or ns >= SINCE_1970_NS else ns + self._base_ns

    def _length(self, value: Any) -> int | None:
        """A duration in us as ns; one below 0, as old versions write, is 0."""
        kind = type(value)
        ns: int | None = None
        if (kind is float or kind is int) and -LONGEST_US < value < LONGEST_US:
            ns = round(value * 1000)
        elif kind is str and len(value) < 40:
            ns = decimal_ns(value)
        if ns is not None and ns < 0:
            self._leave_out("durations below 0, read as 0")
            return 0
        return ns

    def _leave_out(self, what: str) -> None:
        known = self._trace.not_read
        known[what if what in known or len(known) < _MOST_NAMES else "under further names"] += 1

    def _keep(self, into: list[Any], what: Any) -> None:
        self._use_room()
        into.append(what)

    def _use_room(self) -> None:
        if not self._room:
            self._wrong("", f"is beyond {MOST_KEPT:,} collectives, gradients and marks; record fewer steps")
        self._room -= 1

    def _wrong(self, value: Any, message: str) -> NoReturn:
        place = f"traceEvents[{self._trace.events - 1}]"
        raise InputError.one(self._where, place, str(value)[:80], message)


def launch_flows(path: Path, trace: RawTrace, process: Process) -> dict[int, tuple[int, int]]:
    """Index of a kernel without a correlation -> (ns, thread) of its launch, from flow events: a second reading, for
    the few files that need it. ``trace``: what the first one gave; a thread that it does not know is -1."""
    reader = _Reader(path, MOST_KEPT)
    wanted = {
        (kernel.device, kernel.stream, kernel.begin_ns): index
        for index, kernel in enumerate(process.kernels)
        if kernel.correlation is None
    }
    ends: dict[tuple[str, str], int] = {}
    starts: dict[tuple[str, str], tuple[int, int]] = {}
    for key, event in reader._pairs():
        if key == "baseTimeNanoseconds" and type(event) is int:
            reader._rebase(event)
        if key != "traceEvents" or not isinstance(event, dict) or event.get("ph") not in ("s", "f"):
            continue
        at_ns = reader._ns(event.get("ts"))
        if at_ns is None or event.get("cat") == "fwdbwd" or len(starts) >= MOST_LAUNCHES:
            continue
        flow = (str(event.get("cat"))[:40], str(event.get("id"))[:40])
        place = (str(event.get("pid"))[:40], str(event.get("tid"))[:40])
        if event["ph"] == "s":
            starts[flow] = (at_ns, trace.threads.get(place, -1))
        elif (index := wanted.get((*place, at_ns))) is not None:
            ends[flow] = index
    return {index: starts[flow] for flow, index in ends.items() if flow in starts}
