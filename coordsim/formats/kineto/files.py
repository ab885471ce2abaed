"""Trace files of one job as its ranks' records: files of one rank, ranks in one file, many files at a time."""

from __future__ import annotations

import itertools
import os
import pickle
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import IO, Any

from coordsim.errors import InputError
from coordsim.formats.kineto.event_parts import MOST_KEPT
from coordsim.formats.kineto.raw import Process, RawTrace, Span
from coordsim.formats.kineto.reader import launch_flows, read_trace
from coordsim.formats.kineto.steps import SOURCES, RankRecord, record_of
from coordsim.formats.shared.sources import names_in_job

PARALLEL_CHARACTERS = 64_000_000
"""Size of the text of all files from which on further processes are worth their start."""
_IN_ORDER = "the file does not say the ranks of its processes: they are numbered in order"
_BY_NAME = "the files do not say their ranks: they are numbered in the order of their names"
_RANK_IN_NAME = re.compile(r"rank[-_ .]?([0-9]{1,6})(?![0-9])", re.IGNORECASE)
_CYCLE_IN_NAME = re.compile(r"\.[0-9]{10,20}(?=\.|$)")
"""Matches what tensorboard_trace_handler puts into a name: the time of writing."""


def read_ranks(paths: Sequence[Path]) -> list[RankRecord]:
    """Return the records of all ranks, by rank. Raises InputError for files that are no traces, or of several runs."""
    records = _read_all(paths, None)
    common = [source for source in SOURCES if all(source in record.sources for record in records)]
    if any(record.source != common[0] for record in records):
        records = _read_all(paths, common[0])
    _one_run(records)
    return _by_rank(records)


def records_of(path: Path, source: str | None) -> list[RankRecord]:
    """Return one file's records, one for each of its processes that did something."""
    trace = read_trace(path)
    active = [process for process in trace.processes if _is_active(process)] or trace.processes[:1]
    if len(active) > 1 and any(process.rank is not None for process in active):
        active = [process for process in active if process.rank is not None]
    if len(active) > 1:
        stepping = [process for process in active if process.steps or process.optimizers]
        active = stepping or active
    records = []
    for process in active:
        flows = None
        if any(kernel.correlation is None and kernel.external is None for kernel in process.kernels):
            flows = launch_flows(path, trace, process)
        records.append(record_of(_of_one(trace, process, len(active)), process, source, flows))
    if len(records) > 1 and any(record.rank is None for record in records):
        for place, record in enumerate(records):
            record.rank = place
            record.notes["rank_numbers"] = _IN_ORDER
    return records


def _is_active(process: Process) -> bool:
    return bool(process.steps or process.records or process.kernels or process.optimizers or process.nodes.begin_ns)


def _of_one(trace: RawTrace, process: Process, processes: int) -> RawTrace:
    """Return the file for one of several processes; the rank that the file states is that of only one of them."""
    if processes == 1:
        return trace
    return replace(trace, rank=process.rank)


def _one_run(records: Sequence[RankRecord]) -> None:
    """Raise InputError if files contradict each other."""
    first = records[0]
    for record in records:
        for key in ("world_size", "backend"):
            mine, theirs = getattr(record, key), getattr(first, key)
            if mine != theirs and None not in (mine, theirs):
                message = f"of another run: {mine!r}, where {first.files[0]} has {theirs!r}"
                raise InputError.one(record.files[0], f"distributedInfo.{key}", mine, message)
        if record.rank is not None and record.world_size is not None and record.rank >= record.world_size:
            message = f"rank {record.rank} of a job of {record.world_size}"
            raise InputError.one(record.files[0], "distributedInfo.rank", record.rank, message)


def _by_rank(records: Sequence[RankRecord]) -> list[RankRecord]:
    """Return one record a rank; files that one rank wrote one after the other are joined."""
    if len(records) > 1 and any(record.rank is None for record in records):
        _name_ranks(records)
    groups: dict[int | None, list[RankRecord]] = {}
    for record in records:
        groups.setdefault(record.rank, []).append(record)
    joined = [_joined(sorted(group, key=lambda record: record.window)) for group in groups.values()]
    return sorted(joined, key=lambda record: -1 if record.rank is None else record.rank)


def _name_ranks(records: Sequence[RankRecord]) -> None:
    """Assign ranks to files that do not state them: by their names, else one for each writer.

    Files that one writer left one after the other are of one rank.
    """
    unknown = [record for record in records if record.rank is None]
    named = [_RANK_IN_NAME.findall(record.files[0]) for record in unknown]
    if all(named):
        for record, numbers in zip(unknown, named, strict=True):
            record.rank = int(numbers[-1])  # behind folders, which stand in names that would else be equal
            record.notes["rank_numbers"] = "the files do not say their ranks: these are from their names"
        return
    if len(unknown) < len(records):
        record = unknown[0]
        message = "does not say its rank, in the file or its name, beside others"
        raise InputError.one(record.files[0], "distributedInfo.rank", None, message)
    ordered = sorted(records, key=lambda record: record.window)
    apart = all(
        later.window.begin_ns >= earlier.window.end_ns for earlier, later in itertools.pairwise(ordered)
    )
    if apart:
        return
    writers: dict[str, list[RankRecord]] = {}
    for record in records:
        writers.setdefault(_CYCLE_IN_NAME.sub("", record.files[0]), []).append(record)
    for place, writer in enumerate(sorted(writers)):
        for record in writers[writer]:
            record.rank = place
            record.notes["rank_numbers"] = _BY_NAME


def _joined(records: Sequence[RankRecord]) -> RankRecord:
    """Return one rank's files as one record. Raises InputError for files that were recorded at the same time."""
    first = records[0]
    for earlier, later in itertools.pairwise(records):
        if later.window.begin_ns < earlier.window.end_ns:
            message = (
                f"rank {later.rank} has two traces of the same time, here and in {earlier.files[0]}; of two runs?"
                if later.rank is not None else f"was recorded at the same time as {earlier.files[0]}, by the same rank"
            )  # fmt: skip
            raise InputError.one(later.files[0], "distributedInfo.rank", later.rank, message)
    if len(records) == 1:
        return first
    left_out: Counter[str] = sum((record.left_out for record in records), Counter())
    notes = {key: why for record in records for key, why in record.notes.items()}
    return replace(
        first, files=[record.files[0] for record in records],
        steps=[step for record in records for step in record.steps],
        gradients=max((record.gradients for record in records), key=len),
        outside=tuple(call for record in records for call in record.outside),
        events=sum(record.events for record in records), characters=sum(record.characters for record in records),
        window=Span(first.window.begin_ns, records[-1].window.end_ns), left_out=left_out, notes=notes,
        lost=next((record.lost for record in records if record.lost), None),
    )  # fmt: skip


# Many files at a time.


def _read_all(paths: Sequence[Path], source: str | None) -> list[RankRecord]:
    """Return all files' records in order. Raises InputError if they contain more calls than can be kept."""
    records: list[RankRecord] = []
    kept = 0
    for name, of_file in zip(names_in_job(paths), _of_files(paths, source), strict=True):
        for record in of_file:
            record.files = [name]
        records += of_file
        kept += sum(len(step.calls) for record in of_file for step in record.steps)
        kept += sum(len(record.outside) for record in of_file)
        if kept > MOST_KEPT:
            message = f"is beyond {MOST_KEPT:,} collectives of all ranks; record fewer steps"
            raise InputError.one(of_file[-1].files[0], "", None, message)
    return records


def _of_files(paths: Sequence[Path], source: str | None) -> Iterator[list[RankRecord]]:
    """Yield each file's records in order; the first file shows whether further processes are worth their start."""
    first = records_of(paths[0], source)
    yield first
    rest, workers = paths[1:], min(_cores(), len(paths) - 1)
    if workers < 2 or first[0].characters * len(paths) < PARALLEL_CHARACTERS:
        yield from (records_of(path, source) for path in rest)
    else:
        yield from _in_parallel(rest, source, workers)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_parallel(paths: Sequence[Path], source: str | None, workers: int) -> Iterator[list[RankRecord]]:
    """Yield records from child processes; a file that a child cannot read is read here."""
    results: Queue[tuple[int, Any]] = Queue(maxsize=4 * workers)
    children = [_Child(list(range(worker, len(paths), workers)), paths, source, results) for worker in range(workers)]
    ready: dict[int, Any] = {}
    ended = 0
    try:
        for place, path in enumerate(paths):
            while place not in ready and ended < workers:
                at, outcome = results.get()
                if at < 0:
                    ended += 1
                else:
                    ready[at] = outcome
            outcome = ready.pop(place, None)
            if isinstance(outcome, InputError):
                raise outcome
            yield outcome if outcome is not None else records_of(path, source)
    finally:
        for child in children:
            child.stop()
        while any(child.thread.is_alive() for child in children):
            while not results.empty():
                results.get()
            children[0].thread.join(0.01)
        for child in children:
            child.close()


class _Child:
    """One process that reads some of the files, and the thread that receives its records."""

    def __init__(
        self, places: Sequence[int], paths: Sequence[Path], source: str | None, results: Queue[tuple[int, Any]]
    ) -> None:
        self._results = results
        command = [sys.executable, "-m", "coordsim.formats.kineto.files"]
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert self._process.stdin is not None
            pickle.dump(([(place, paths[place]) for place in places], source), self._process.stdin)
            self._process.stdin.close()
        except (OSError, pickle.PicklingError, AttributeError, TypeError):
            self.stop()
        self.thread = Thread(target=self._take, daemon=True)
        self.thread.start()

    def _take(self) -> None:
        try:
            if self._process is not None and self._process.stdout is not None:
                while True:
                    self._results.put(pickle.load(self._process.stdout))
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            pass
        finally:
            self._results.put((-1, None))

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Close the pipes after :meth:`stop`, when the thread has ended."""
        if self._process is not None:
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()


def _work(stdin: IO[bytes], stdout: IO[bytes]) -> None:
    """Read files named on ``stdin`` and write records to ``stdout``, which only the parent reads.

    This runs in the child.
    """
    tasks, source = pickle.load(stdin)
    for place, path in tasks:
        outcome: Any
        try:
            outcome = records_of(path, source)
        except InputError as error:
            outcome = error
        pickle.dump((place, outcome), stdout)
        stdout.flush()


if __name__ == "__main__":
    _work(sys.stdin.buffer, sys.stdout.buffer)
