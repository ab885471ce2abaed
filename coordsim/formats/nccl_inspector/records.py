"""Reads what NCCL's profiler plug-in "Inspector" writes: one JSON object for each completed operation.

The writer is ``plugins/profiler/inspector/inspector_json.cc`` of NCCL (``ext-profiler/inspector/inspector.cc`` before
2.29.7). Its format states v4.0 in every release from 2.28 to 2.30; v4.1 adds ``dump_stats``, v4.2 ``coll_algo`` and
``coll_proto``; from v4.3 on a communicator's header stands once, in the ``dump_stats`` record before its operations.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from sys import intern
from typing import Any, NamedTuple

from coordsim.errors import InputError
from coordsim.formats.shared.json_text import JsonText
from coordsim.formats.shared.sources import SourcePath

EXPECTED = "expected records of NCCL Inspector (header, metadata, coll_perf or p2p_perf)"
KNOWN_VERSIONS = ("v4.0", "v4.1", "v4.2", "v4.3", "v4.4")
MOST_RECORDS = 1 << 23
"""Largest number of records of all files together that are kept, 45 bytes each; records beyond it are counted."""
MOST_SERIES = 1 << 19
"""Largest number of pairs of a rank and a kind of operation in a communicator."""
GPU, CPU, HOST, NOT_SAID = range(4)
_SOURCES = {"kernel_gpu": GPU, "kernel_cpu": CPU, "collective_cpu": HOST}
_KINDS = ("coll", "p2p")
_LARGEST = 1 << 50
_LONGEST_US = 1e14
_LAST_TIME_US = 1 << 52
_MOST_CHANNELS = 1024


class Communicator(NamedTuple):
    """What a header states of a communicator."""

    id: str
    """Its hash, as written (``0x7f8c496ae9f661``)."""
    name: str | None
    ranks: int
    nodes: int | None


class Series(NamedTuple):
    """The operations of one name on one rank of a communicator."""

    communicator: int
    """Place in :attr:`Records.communicators`."""
    rank: int
    operation: str
    point_to_point: bool


class Process(NamedTuple):
    host: str
    pid: int


class _Unread(ValueError):
    """A record that cannot be used, and the reason."""


@dataclass
class Records:
    """The operations of one job. The columns have one entry for each record that was kept, in the files' order."""

    communicators: list[Communicator] = field(default_factory=list)
    processes: dict[tuple[int, int], Process] = field(default_factory=dict)
    """(communicator, rank) -> the process of that rank."""
    series: list[Series] = field(default_factory=list)
    of_series: array[int] = field(default_factory=lambda: array("i"))
    number: array[int] = field(default_factory=lambda: array("q"))
    """Sequence number: NCCL counts the calls of each collective in a communicator."""
    nbytes: array[int] = field(default_factory=lambda: array("q"))
    time_us: array[float] = field(default_factory=lambda: array("d"))
    """Duration; 0 if it was not measured."""
    source: array[int] = field(default_factory=lambda: array("b"))
    start_us: array[int] = field(default_factory=lambda: array("q"))
    """First kernel's start since 1970; 0 without a verbose dump."""
    stop_us: array[int] = field(default_factory=lambda: array("q"))
    versions: Counter[str] = field(default_factory=Counter)
    dropped: dict[tuple[int, int], int] = field(default_factory=dict)
    """(communicator, rank) -> collectives that the plug-in dropped, if it states them (v4.1)."""
    algorithms: Counter[str] = field(default_factory=Counter)
    other_kinds: Counter[str] = field(default_factory=Counter)
    """Kinds of records that are not read."""
    unread: int = 0
    first_unread: str | None = None
    beyond: int = 0
    """Number of records beyond MOST_RECORDS."""
    repeated: int = 0
    """Number of records that an earlier file had already."""
    other_rates: int = 0
    """Number of records whose bus bandwidth does not follow from size, time and ranks."""
    lost: list[str] = field(default_factory=list)
    _known: dict[tuple[str, int], int] = field(default_factory=dict)
    _series: dict[Series, int] = field(default_factory=dict)
    _spans: dict[int, list[int]] = field(default_factory=dict)


def read_records(paths: list[SourcePath]) -> Records:
    """Return the records in ``paths``. Raises InputError if a file has none."""
    records = Records()
    for place, path in enumerate(paths):
        _read_file(records, path, place)
    return records


def _read_file(records: Records, path: SourcePath, place: int) -> None:
    text = JsonText(path, EXPECTED, "record")
    reader = _Reader(records, path, place)
    before = records.unread
    for number, value in enumerate(_values(text, records, path), 1):
        try:
            reader.take(value)
        except _Unread as error:
            _note_unread(records, f"{path.name}, record {number}: {error}")
    if text.lost is not None:
        records.lost.append(f"{path.name}: {text.lost}")
    if not reader.taken:
        why = records.first_unread if records.unread > before else (text.lost or "is empty")
        raise InputError.one(str(path), "", None, f"has no record: {why}; {EXPECTED}")


def _values(text: JsonText, records: Records, path: SourcePath) -> Iterator[Any]:
    """Yield JSON values, one after another, on one line each or on several.

    Text that is no value is passed over, to its line's end.
    """
    while first := text.next_character():
        place = text.place
        if first in "[,]":  # records that somebody put into one array
            text.at += 1
            continue
        try:
            if first != "{":
                raise InputError.one(str(path), "", None, f"begins with {first!r}")
            value = text.value()
        except InputError as error:
            _note_unread(records, f"{path.name}, character {place}: {error.problems[0].message}"[:300])
            _next_line(text)
            continue
        if text.cut:
            return
        yield value


def _next_line(text: JsonText) -> None:
    while (end := text.buffer.find("\n", text.at)) < 0:
        text.at = len(text.buffer)
        if not text.more():
            return
    text.at = end + 1


def _note_unread(records: Records, why: str) -> None:
    records.unread += 1
    if records.first_unread is None:
        records.first_unread = why


class _Reader:
    """Reads one file's records in order: from v4.3 on an operation belongs to the header before it."""

    def __init__(self, records: Records, path: SourcePath, place: int) -> None:
        self.records = records
        self.path = path
        self.place = place
        self.taken = 0
        self.at: tuple[int, int] | None = None

    def take(self, value: dict[str, Any]) -> None:
        """Add one record. Raises _Unread, with the key, for an invalid one."""
        kind = next((kind for kind in (*(f"{kind}_perf" for kind in _KINDS), "dump_stats") if kind in value), None)
        if "header" in value or "id" in value:
            self.at = self._header(value)
        if kind is None:
            if self.at is None:
                raise _Unread("has neither coll_perf nor p2p_perf")
            known = {"header", "metadata"}
            self.records.other_kinds[next((str(key)[:40] for key in value if key not in known), "empty")] += 1
            return
        if self.at is None:
            raise _Unread(f"{kind} without a header")
        body = value[kind]
        if not isinstance(body, dict):
            raise _Unread(f"{kind} is no object")
        if kind == "dump_stats":
            dropped = _whole(body, "coll_dropped_total", _LARGEST)
            self.records.dropped[self.at] = max(self.records.dropped.get(self.at, 0), dropped)
            self.taken += 1
            return
        self._operation(self.at, kind.removesuffix("_perf"), body)

    def _header(self, value: dict[str, Any]) -> tuple[int, int]:
        records = self.records
        header, metadata = value.get("header", value), value.get("metadata", value)
        if not isinstance(header, dict) or not isinstance(metadata, dict):
            raise _Unread("header or metadata is no object")
        name = header.get("id")
        if not isinstance(name, str | int) or isinstance(name, bool) or not str(name):
            raise _Unread("header.id is no communicator")
        ranks, rank = _whole(header, "n_ranks", 1 << 24), _whole(header, "rank", 1 << 24)
        if rank >= ranks:
            raise _Unread(f"header.rank is {rank} of {ranks} ranks")
        key = (str(name)[:80], ranks)
        index = records._known.get(key)
        if index is None:
            index = records._known[key] = len(records.communicators)
            label = header.get("comm_name")
            known = isinstance(label, str) and label not in ("", "unknown")
            nodes = header.get("nnodes")
            nodes = nodes if type(nodes) is int and 0 < nodes <= ranks else None
            records.communicators.append(Communicator(key[0], str(label)[:80] if known else None, ranks, nodes))
        version = metadata.get("inspector_output_format_version")
        records.versions[intern(version[:20]) if isinstance(version, str) else "not said"] += 1
        if (index, rank) not in records.processes:
            host, pid = metadata.get("hostname"), metadata.get("pid")
            if isinstance(host, str) and type(pid) is int:
                records.processes[index, rank] = Process(intern(host[:80]), pid)
        return index, rank

    def _operation(self, at: tuple[int, int], kind: str, body: dict[str, Any]) -> None:
        records = self.records
        name = body.get(kind)
        if not isinstance(name, str) or not name:
            raise _Unread(f"{kind}_perf.{kind} is no name")
        number = _whole(body, f"{kind}_sn", 1 << 62)
        nbytes = _whole(body, f"{kind}_msg_size_bytes", _LARGEST)
        time_us = body.get(f"{kind}_exec_time_us")
        if isinstance(time_us, bool) or not isinstance(time_us, int | float) or not 0 <= time_us < _LONGEST_US:
            raise _Unread(f"{kind}_perf.{kind}_exec_time_us is no time")
        start, stop = _stamps(body)
        self.taken += 1
        series = self._series_of(Series(at[0], at[1], intern(name[:40]), kind == "p2p"))
        if self._had_before(series, number):
            records.repeated += 1
            return
        if len(records.number) == MOST_RECORDS:
            records.beyond += 1
            return
        records.of_series.append(series)
        records.number.append(number)
        records.nbytes.append(nbytes)
        records.time_us.append(float(time_us))
        records.source.append(_SOURCES.get(str(body.get(f"{kind}_timing_source"))[:20], NOT_SAID))
        records.start_us.append(start)
        records.stop_us.append(stop)
        if kind == "coll":
            if isinstance(body.get("coll_algo"), str):
                records.algorithms[intern(f"{body['coll_algo']} {body.get('coll_proto', '')}"[:40].strip())] += 1
            rate = body.get("coll_busbw_gbs")
            ranks = records.communicators[at[0]].ranks
            records.other_rates += not _follows(rate, bus_bytes(name, nbytes, ranks), float(time_us))

    def _series_of(self, key: Series) -> int:
        records = self.records
        index = records._series.get(key)
        if index is None:
            if len(records.series) == MOST_SERIES:
                message = f"more than {MOST_SERIES:,} ranks and kinds of operations; {EXPECTED}"
                raise InputError.one(str(self.path), "", None, message)
            index = records._series[key] = len(records.series)
            records.series.append(key)
        return index

    def _had_before(self, series: int, number: int) -> bool:
        """Return whether an earlier file had this call of the series, since the copy of a file must not count twice."""
        span = self.records._spans.get(series)
        if span is None:
            self.records._spans[series] = [self.place, number, number, 1, 0]
            return False
        if span[0] != self.place:
            low, high = (span[1], span[2]) if span[3] > span[4] else (min(span[1], span[3]), max(span[2], span[4]))
            span[:] = [self.place, number, number, low, high]
        span[1], span[2] = min(span[1], number), max(span[2], number)
        return span[3] <= number <= span[4]


def bus_bytes(operation: str, nbytes: int, ranks: int) -> float | None:
    """Return bytes over the busiest link, as the plug-in and nccl-tests count them; None if neither defines them.

    ``nbytes`` is the call's count times its type: what one rank puts into an AllGather, and gets out of a
    ReduceScatter.
    """
    if operation == "AllReduce":
        return 2 * (ranks - 1) / ranks * nbytes
    if operation in ("AllGather", "ReduceScatter"):
        return float((ranks - 1) * nbytes)
    return float(nbytes) if operation in ("Broadcast", "Reduce") else None


def _follows(rate: Any, moved: float | None, time_us: float) -> bool:
    """Return whether a bandwidth in GB/s follows from size and time; True if there is nothing to compare."""
    if moved is None or time_us < 1 or isinstance(rate, bool) or not isinstance(rate, int | float):
        return True
    wanted = moved / time_us / 1e3
    return bool(abs(rate - wanted) <= 0.02 * wanted + 1e-5)


def _whole(body: dict[str, Any], key: str, limit: int) -> int:
    value = body.get(key)
    if type(value) is not int or not 0 <= value < limit:
        raise _Unread(f"{key} is {str(value)[:40] if isinstance(value, int | float | str | None) else 'no number'}")
    return value


def _stamps(body: dict[str, Any]) -> tuple[int, int]:
    """Return start of the first channel's kernel and end of the last one's, us since 1970; 0, 0 where not recorded."""
    trace = body.get("event_trace_ts")
    events = trace.get("kernel_events") if isinstance(trace, dict) else None
    if not isinstance(events, list) or not events or len(events) > _MOST_CHANNELS:
        return 0, 0
    start, stop = 0, 0
    for event in events:
        if not isinstance(event, dict):
            return 0, 0
        begun, ended = event.get("kernel_start_ts"), event.get("kernel_stop_ts")
        if begun == 0 and ended == 0:
            continue  # the plug-in lists channels from 0 on, whichever the call used
        if type(begun) is not int or type(ended) is not int or not 0 < begun <= ended < _LAST_TIME_US:
            return 0, 0
        start, stop = min(start, begun) if start else begun, max(stop, ended)
    return start, stop
