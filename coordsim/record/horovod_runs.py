"""Recorded runs of real Horovod: launches with the times of every rank and step, and the machine's primitives.

A folder holds one JSON file a launch (``docs/validation.md`` describes the format), and beside them what single
primitives cost on the same machine. Everything is checked on the way in: a file that was cut short, a rank that is
missing or steps of different length are one clear error, and nothing is half read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coordsim.errors import InputError, nearest

Int64 = npt.NDArray[np.int64]

NS_PER_S = 1_000_000_000
DEFAULT_CYCLE_MS = 1.0
DEFAULT_THRESHOLD_BYTES = 134_217_728
DEFAULT_CACHE_CAPACITY = 1024
_DEFAULT_TENSORS, _DEFAULT_ELEMENTS, _FLOAT_BYTES = 161, 64, 4
_TIMES = ("t_start", "t_submitted", "t_end")
_LONGEST_S = 1e6


@dataclass(frozen=True)
class RecordedWorkload:
    """One workload of a launch. Times in ns on one clock, shape [rank, step]."""

    name: str
    spec: dict[str, Any]
    start_ns: Int64
    submitted_ns: Int64
    """The rank's last submission of the step is done."""
    end_ns: Int64
    """The rank's last wait has returned."""
    submit_share: dict[int, npt.NDArray[np.float64]]
    """By rank with detail: mean share of the submission's duration at which each unit is submitted, shape [unit]."""
    notice_ns: float | None
    """What noticing one finished unit takes, where the detail shows it."""

    @property
    def ranks(self) -> int:
        return int(self.start_ns.shape[0])

    @property
    def steps(self) -> int:
        return int(self.start_ns.shape[1])

    @property
    def units(self) -> int:
        """What is submitted at once: tensors, or groups of them."""
        return int(self.spec.get("groups") or self.tensors)

    @property
    def tensors(self) -> int:
        return int(self.spec.get("tensors", _DEFAULT_TENSORS))

    @property
    def gradient_bytes(self) -> int:
        """Of one step, all tensors together."""
        if self.spec.get("sizes") == "scaled":
            return 25_557_032 * _FLOAT_BYTES // 64  # ResNet-50's parameters, divided by 64
        return self.tensors * int(self.spec.get("numel", _DEFAULT_ELEMENTS)) * _FLOAT_BYTES

    @property
    def computes(self) -> bool:
        """Whether submitting keeps a core busy; with a delay it sleeps most of the time."""
        return not self.spec.get("delay_us")

    @property
    def single(self) -> bool:
        """One small tensor back to back: its latency is a lottery over the loop's phase."""
        return self.units == 1 and not self.spec.get("groups") and not self.spec.get("delay_us")

    @property
    def names(self) -> tuple[str, ...]:
        """What the cache knows its tensors by; workloads that share a prefix share them."""
        prefix = str(self.spec.get("prefix", "small"))
        if self.spec.get("sizes"):
            prefix += f".{self.spec['sizes']}"
        if self.spec.get("groups"):
            prefix += f".g{self.spec['groups']}"
        return tuple(f"{prefix}.{index}" for index in range(self.tensors))

    def step_ms(self, skip: int) -> npt.NDArray[np.float64]:
        """Time from the last end of the step before to the last end of this one; the first ``skip`` left out."""
        return np.asarray(np.diff(self.end_ns.max(axis=0))[skip - 1 :] / 1e6)

    def tail_ms(self, skip: int) -> npt.NDArray[np.float64]:
        """Time from the last submission of any rank to the last end."""
        return np.asarray((self.end_ns.max(axis=0) - self.submitted_ns.max(axis=0))[skip:] / 1e6)


@dataclass(frozen=True)
class Launch:
    """One launch of a job: its settings and its workloads in the order they ran."""

    file: Path
    case: str
    controller: str
    ranks: int
    cycle_ns: int
    threshold_bytes: int
    cache_capacity: int
    cores: int | None
    """Of the machine all ranks shared; None when the file does not say."""
    delay_ns: int
    """Of a message between ranks, one way, by an emulated network; 0: they shared a host."""
    timeline: bool
    """Whether Horovod wrote its timeline meanwhile, which disturbs step times."""
    workloads: tuple[RecordedWorkload, ...]

    @property
    def settings(self) -> tuple[object, ...]:
        """Equal for launches that repeat one another."""
        return (
            self.controller, self.ranks, self.cycle_ns, self.threshold_bytes, self.cache_capacity, self.timeline,
            self.delay_ns,
        )  # fmt: skip


@dataclass(frozen=True)
class Sleep:
    """What asking to sleep really takes on the recorded machine, ns; shape [length] each, ascending."""

    asked_ns: Int64
    median_ns: Int64
    spread_ns: Int64
    """Standard deviation, as the distance of the 10th and 90th percentile of a normal distribution."""


@dataclass(frozen=True)
class Primitive:
    """One collective timed alone, between ranks of the recorded machine."""

    controller: str
    ranks: int
    op: str
    nbytes: int
    median_ns: int


@dataclass(frozen=True)
class RecordedRuns:
    """What one folder holds."""

    folder: Path
    launches: tuple[Launch, ...]
    sleep: Sleep | None
    primitives: tuple[Primitive, ...]
    others: tuple[str, ...]
    """Files that are none of these."""


def read_folder(folder: Path) -> RecordedRuns:
    """All recorded runs of ``folder``. Raises InputError for a folder or a file that cannot be understood."""
    if not folder.is_dir():
        raise InputError.one(str(folder), "", str(folder), "is not a folder of recorded runs")
    launches, others, sleep = [], [], None
    primitives: list[Primitive] = []
    for file in sorted(folder.glob("*.json")):
        found = _load(file)
        if isinstance(found, dict) and "workloads" in found:
            launches.append(read_launch(file, found))
        elif file.stem == "primitives_sleep":
            sleep = _sleep(file, found)
        elif match := re.fullmatch(r"primitives_(\w+)_n\d+", file.stem):
            primitives += _primitives(file, match.group(1), found)
        else:
            others.append(file.name)
    if not launches:
        raise InputError.one(str(folder), "", str(folder), "holds no recorded launch (*.json with workloads)")
    return RecordedRuns(folder, tuple(launches), sleep, tuple(primitives), tuple(others))


def read_launch(file: Path, found: dict[str, Any] | None = None) -> Launch:
    """One launch. Raises InputError, naming the file and what is wrong in it."""
    reader = _Reader(file, _load(file) if found is None else found)
    ranks = reader.whole("n", 1)
    env = reader.table("env")
    machine = str(reader.content.get("machine", ""))
    cores = re.search(r"(\d+)\s*v?CPU", machine)
    cycle_ms = reader.number(env, "HOROVOD_CYCLE_TIME", DEFAULT_CYCLE_MS)
    return Launch(
        file=file,
        case=str(reader.content.get("case", file.stem)),
        controller=reader.text("controller"),
        ranks=ranks,
        cycle_ns=round(cycle_ms * 1e6),
        threshold_bytes=int(reader.number(env, "HOROVOD_FUSION_THRESHOLD", DEFAULT_THRESHOLD_BYTES)),
        cache_capacity=int(reader.number(env, "HOROVOD_CACHE_CAPACITY", DEFAULT_CACHE_CAPACITY)),
        cores=int(cores.group(1)) if cores else None,
        delay_ns=round(1000 * reader.number(reader.content.get("network") or {}, "delay_us", 0.0)),
        timeline=bool(reader.content.get("timeline", False)),
        workloads=tuple(
            _workload(reader, name, found, ranks) for name, found in reader.table("workloads").items()
        ),
    )


def _load(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        message = f"is not complete JSON ({error.msg} at {place} of {file.stat().st_size:,} bytes): cut short?"
        raise InputError.one(str(file), "", "", message) from None
    except UnicodeDecodeError as error:
        raise InputError.one(str(file), "", "", f"is not UTF-8 text (byte {error.start})") from None
    except RecursionError:
        raise InputError.one(str(file), "", "", "is nested too deeply to be a recorded run") from None
    except OSError as error:
        raise InputError.one(str(file), "", "", f"cannot be read: {error.strerror}") from None


class _Reader:
    """Looks things up in one file, and says where they are missing."""

    def __init__(self, file: Path, content: Any) -> None:
        self.file = file
        if not isinstance(content, dict):
            self.fail("", content, "is no recorded run: an object with n, controller, env and workloads is expected")
        self.content: dict[str, Any] = content

    def fail(self, key: str, value: Any, message: str, allowed: tuple[str, ...] = ()) -> Any:
        raise InputError.one(str(self.file), key, value, message, allowed)

    def _get(self, key: str) -> Any:
        if key not in self.content:
            guess = nearest(key, tuple(self.content))
            hint = f" (did you mean {guess!r}?)" if guess else ""
            self.fail(key, None, f"is missing{hint}")
        return self.content[key]

    def whole(self, key: str, lowest: int) -> int:
        value = self._get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
            self.fail(key, value, f"{value!r} is not a whole number of at least {lowest}")
        return int(value)

    def text(self, key: str) -> str:
        value = self._get(key)
        return value if isinstance(value, str) else str(self.fail(key, value, f"{value!r} is not text"))

    def table(self, key: str) -> dict[str, Any]:
        value = self._get(key)
        return value if isinstance(value, dict) else dict(self.fail(key, value, f"{value!r} is not a table"))

    def number(self, table: dict[str, Any], key: str, default: float) -> float:
        value = table.get(key, default)
        try:
            found = float(value)
        except (TypeError, ValueError):
            found = math.nan
        if not (math.isfinite(found) and found >= 0):
            self.fail(f"env.{key}", value, f"{value!r} is not a number of at least 0")
        return found

    def times(self, where: str, values: Any, steps: int | None) -> Int64:
        """A list of seconds as ns; ``steps`` long where that is known."""
        if not isinstance(values, list) or not values:
            self.fail(where, values, "is not a list of times in seconds")
        if steps is not None and len(values) != steps:
            self.fail(where, len(values), f"has {len(values)} steps where {steps} are expected")
        for step, value in enumerate(values):
            good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LONGEST_S
            if not good:
                self.fail(f"{where}[{step}]", value, f"{value!r} is not a time in seconds")
        return np.array([round(value * NS_PER_S) for value in values], dtype=np.int64)


def _workload(reader: _Reader, name: str, found: Any, ranks: int) -> RecordedWorkload:
    where = f"workloads.{name}"
    if not isinstance(found, dict) or not isinstance(found.get("spec"), dict) or "ranks" not in found:
        reader.fail(where, found, "needs spec and ranks")
    spec, records = found["spec"], found["ranks"]
    if not isinstance(records, list) or len(records) != ranks:
        has = len(records) if isinstance(records, list) else 0
        reader.fail(f"{where}.ranks", has, f"has {has} ranks where the launch has {ranks}: a rank is missing")
    columns: dict[str, list[Int64]] = {key: [] for key in _TIMES}
    steps: int | None = None
    for rank, record in enumerate(records):
        if not isinstance(record, dict):
            reader.fail(f"{where}.ranks[{rank}]", record, "is not a table")
        for key in _TIMES:
            place = f"{where}.ranks[{rank}].{key}"
            if key not in record:
                reader.fail(place, None, "is missing")
            times = reader.times(place, record[key], steps)
            steps = times.size
            columns[key].append(times)
    start, submitted, end = (np.stack(columns[key]) for key in _TIMES)
    _in_order(reader, where, start, submitted, end)
    _spec(reader, where, spec)
    return RecordedWorkload(
        name, spec, start, submitted, end,
        dict(_shares(reader, where, records, start, submitted, spec)), _notice_ns(records),
    )  # fmt: skip


def _in_order(reader: _Reader, where: str, start: Int64, submitted: Int64, end: Int64) -> None:
    """Start, last submission, end, and the next start follow one another on each rank."""
    orders: tuple[tuple[str, npt.NDArray[np.bool_]], ...] = (
        ("t_submitted is before t_start", submitted < start),
        ("t_end is before t_submitted", end < submitted),
        ("t_start is before the end of the step before", np.pad(start[:, 1:] < end[:, :-1], ((0, 0), (1, 0)))),
    )
    for message, wrong in orders:
        if wrong.any():
            rank, step = (int(index) for index in np.argwhere(wrong)[0])
            reader.fail(f"{where}.ranks[{rank}]", int(start[rank, step]), f"step {step}: {message}")


def _spec(reader: _Reader, where: str, spec: dict[str, Any]) -> None:
    """What the workload's description may say."""
    checks: dict[str, Callable[[Any], bool]] = {
        "tensors": lambda value: isinstance(value, int) and 1 <= value <= 1_000_000,
        "numel": lambda value: isinstance(value, int) and 1 <= value <= 10**10,
        "groups": lambda value: isinstance(value, int) and value >= 1,
        "delay_us": lambda value: isinstance(value, int | float) and value >= 0,
    }
    for key, good in checks.items():
        value = spec.get(key)
        if value is not None and not good(value):
            reader.fail(f"{where}.spec.{key}", value, f"{value!r} is out of range")


def _shares(
    reader: _Reader, where: str, records: list[Any], start: Int64, submitted: Int64, spec: dict[str, Any]
) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    """By rank: when each unit is submitted, as a mean share of the submission's duration."""
    for rank, record in enumerate(records):
        detail = record.get("submit_detail") or {}
        rows = []
        for key, offsets in detail.items():
            place = f"{where}.ranks[{rank}].submit_detail.{key}"
            if not (key.isdecimal() and int(key) < start.shape[1]):
                reader.fail(place, key, f"is not one of {start.shape[1]} steps")
            offsets_ns = reader.times(place, offsets, None)
            duration = max(int(submitted[rank, int(key)] - start[rank, int(key)]), 1)
            rows.append(np.minimum(offsets_ns / duration, 1.0))
        if len({row.size for row in rows}) > 1:
            reader.fail(f"{where}.ranks[{rank}].submit_detail", len(rows), "has steps of different length")
        expected = spec.get("groups") or spec.get("tensors", _DEFAULT_TENSORS)
        if rows and rows[0].size != expected:
            reader.fail(
                f"{where}.ranks[{rank}].submit_detail", rows[0].size,
                f"has {rows[0].size} submissions a step where the spec says {expected}",
            )  # fmt: skip
        if rows:
            yield rank, np.maximum.accumulate(np.mean(rows, axis=0))


def _notice_ns(records: list[Any]) -> float | None:
    """Median time between two finished units that a rank notices without waiting in between."""
    gaps = [
        (after - before) * NS_PER_S
        for record in records
        for times in (record.get("done_detail") or {}).values()
        if isinstance(times, list)
        for before, after in pairwise(times)
    ]
    quick = [gap for gap in gaps if 0 <= gap < 50_000]
    return float(np.mean(quick)) if len(quick) >= 20 else None


def _sleep(file: Path, found: Any) -> Sleep:
    """``primitives_sleep.json``: microseconds asked for -> percentiles of what it took."""
    rows = []
    if not isinstance(found, dict):
        raise InputError.one(str(file), "", found, "is not a table of sleep lengths")
    for asked, times in found.items():
        try:
            low, median, high = (float(times[key]) for key in ("p10", "median", "p90"))
            rows.append((round(float(asked) * 1000), round(median * 1000), round((high - low) / 2.563 * 1000)))
        except (TypeError, KeyError, ValueError):
            raise InputError.one(str(file), asked, times, "needs p10, median and p90 in microseconds") from None
    rows.sort()
    asked_ns, median_ns, spread_ns = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    return Sleep(asked_ns, median_ns, spread_ns)


def _primitives(file: Path, controller: str, found: Any) -> Iterator[Primitive]:
    """``primitives_<controller>_n<N>.json``: a list of collectives with their sizes and median times."""
    if not isinstance(found, list):
        raise InputError.one(str(file), "", found, "is not a list of primitives")
    for index, row in enumerate(found):
        try:
            yield Primitive(
                controller, int(row["n"]), str(row["op"]), int(row["bytes"]), round(float(row["median_us"]) * 1000)
            )
        except (TypeError, KeyError, ValueError):
            raise InputError.one(str(file), f"[{index}]", row, "needs op, n, bytes and median_us") from None
