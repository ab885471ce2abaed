"""Runs as measurements: what a trace, or a folder of ranks' records, says of exchanges, collectives and readiness.

The cold step is left out. A run directory keeps no rank's own times, so that it tells nothing of noise by rank; a
folder of records does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from coordsim.analyse.calibrate.regression import LEAST_SAMPLES
from coordsim.errors import InputError
from coordsim.record.measurement import Measurement, Series
from coordsim.record.ranks import RankRecord
from coordsim.record.ranks.format import NULL
from coordsim.record.run import Run, open_run
from coordsim.record.run_facts import RunKind
from coordsim.record.trace import Int64, Kind, Trace


def read_runs(paths: Sequence[Path]) -> Measurement:
    """One measurement of all ``paths``: run directories, or folders of ranks' records.

    Raises InputError for what is neither, and for real and simulated runs together.
    """
    series: list[Series] = []
    sources: dict[str, Path] = {}
    hosts: list[str] = []
    dates: list[str] = []
    missing: dict[str, str] = {}
    for path in paths:
        source, found, names, date, absent = _read(path)
        sources.setdefault(source, path)
        series += found
        hosts += names
        dates += date
        missing |= absent
    if len(sources) > 1:
        message = f"is a simulation and {sources['RECORDED']} is not: calibrate them apart"
        raise InputError.one(str(sources["SIMULATED"]), "", None, message)
    if not series:
        raise InputError.one(str(paths[0]), "", None, f"tells nothing: nothing happened {LEAST_SAMPLES} times alike")
    names = sorted(set(hosts))
    host = {"name": ", ".join(names) or None, "cores": 0, "hosts": names}
    taken = {"date": min(dates, default=None), "runs": [str(path) for path in paths]}
    return Measurement(next(iter(sources)), host, taken, tuple(series), missing)


def _read(path: Path) -> tuple[str, list[Series], list[str], list[str], dict[str, str]]:
    run = open_run(path)
    if run.streams is None:
        real = run.facts.kind is not RunKind.SIMULATED
        missing = {"step": f"{path} keeps no rank's own times; the folder of ranks' records does"}
        series = list(of_trace(run.trace, run.facts.first_step, _ranks(run), ""))
        return "RECORDED" if real else "SIMULATED", series, [], [], missing
    records, merged = run.records, run.streams.merged
    names = sorted({record.host for record in records})
    began = min(record.started_unix_ns for record in records)
    date = [datetime.fromtimestamp(began / 1e9, UTC).date().isoformat()] if began else []
    series = list(of_trace(merged.trace, merged.first_step, records[0].ranks, ",".join(names)))
    absent = set(range(records[0].ranks)) - {record.rank for record in records}
    if absent:
        told = ", ".join(map(str, sorted(absent)[:8]))
        missing = {"step": f"{path}: ranks {told} left no record"}
        return "RECORDED", series, names, date, missing
    return "RECORDED", [*series, *of_records(records)], names, date, {}


def _ranks(run: Run) -> int:
    ranks = run.facts.ranks
    if ranks is None or ranks < 1:
        raise InputError.one(str(run.path / "manifest.json"), "ranks", ranks, f"{ranks!r} is not a number of ranks")
    return ranks


def of_trace(trace: Trace, first_step: int, ranks: int, node: str) -> Iterator[Series]:
    """What is in both simulated and recorded traces. ``first_step``: the number of the trace's first step in the run,
    where 0 is cold."""
    cold = 1 if first_step == 0 else 0
    if ranks < 2:
        return
    cycles, responses = trace.cycles, trace.responses
    warm = cycles["step"] >= cold
    alone = ~np.isin(cycles["cycle"], responses["cycle"][responses["collective_ns"] == 0])
    fast = warm & alone & (cycles["kind"] == Kind.FAST)
    exchange = cycles["leave_last_shadow_ns"] - cycles["enter_last_ns"]
    yield from _grouped("exchange", ranks, np.zeros_like(exchange)[fast], exchange[fast], node)
    slow = warm & (cycles["kind"] == Kind.SLOW) & (cycles["requests"] > 0)
    work = cycles["leave_last_ns"] - cycles["leave_last_shadow_ns"]
    yield from _grouped("work", ranks, cycles["requests"][slow], work[slow], node)
    yield from _grouped("round", ranks, cycles["request_bytes"][slow], exchange[slow], node)
    moved = (responses["collective_ns"] > 0) & (responses["bytes"] >= 0)
    if cycles["cycle"].size:
        moved &= np.isin(responses["cycle"], cycles["cycle"][warm])
    else:  # nobody negotiated (DDP)
        moved &= responses["begin_ns"] >= trace.steps["start_ns"][min(cold, trace.steps["step"].size - 1)]
    yield from _grouped("allreduce", ranks, responses["bytes"][moved], responses["collective_ns"][moved], node)
    copied = moved & (responses["units"] > 1) & (responses["copy_in_ns"] > 0)
    yield from _grouped("copy", ranks, responses["bytes"][copied], responses["copy_in_ns"][copied], node)


def _grouped(what: str, ranks: int, keys: Int64, values: Int64, node: str) -> Iterator[Series]:
    """One series for each key that occurs often enough."""
    for key in np.unique(keys).tolist():
        samples = tuple(float(value) for value in values[keys == key] if value > 0)
        if len(samples) >= LEAST_SAMPLES:
            counted = what == "work"
            yield Series(
                what, ranks, samples, 0 if counted else key, key if counted else 1,
                "auto" if what == "allreduce" else "", node=node,
            )  # fmt: skip


def of_records(records: Sequence[RankRecord]) -> Iterator[Series]:
    """Each rank's time from a step's begin to its last submission, on its own clock; of steps that all ranks have, so
    that a number is the same step in all series."""
    found = [_steps(record) for record in records]
    common = sorted(set.intersection(*(set(each) for each in found)))
    for record, times in zip(records, found, strict=True):
        if common:
            host, run = record.host, str(record.path.parent)
            samples = tuple(times[step] for step in common)
            yield Series("step", record.ranks, samples, path=run, rank=record.rank, node=host)


def _steps(record: RankRecord) -> dict[int, float]:
    """Step -> ns; without the cold one."""
    times = {}
    previous_end = NULL
    for step in sorted(record.steps, key=lambda each: each.step):
        began = step.start_ns if step.start_ns != NULL else previous_end
        if step.step > 0 and began != NULL and step.last_submit_ns > began:
            times[step.step] = float(step.last_submit_ns - began)
        previous_end = step.end_ns if step.end_ns != NULL else step.end_collective_ns
    return times
