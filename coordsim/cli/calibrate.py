"""``coordsim calibrate``: a cluster file from timings of this machine, or from runs."""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordsim.cli import console, interrupt
from coordsim.cli.progress import Bar
from coordsim.errors import InputError

if TYPE_CHECKING:
    from coordsim.record.measurement import Measurement

HERE = "here"
RANKS_PER_CORE = 4
"""More processes than that are timed by nobody: it is the scheduler that would be."""


def calibrate(
    run: Annotated[
        list[str], typer.Argument(metavar="RUN", help="'here': this machine. Else folders of records, run directories.")
    ],
    ranks: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="Processes to measure with (2,4; quick: 2).", show_default=False),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer sizes and repeats, some 15 s.")] = False,
    backend: Annotated[
        str | None,
        typer.Option(metavar="gloo|coord", help="Also this torch backend's collectives, at 2 to 8 ranks, for predict.",
                     show_default=False),
    ] = None,
    measured: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Fit an earlier measurement again.", show_default=False),
    ] = None,
    base: Annotated[str, typer.Option(metavar="NAME", help="Cluster whose values stand elsewhere.")] = "localhost",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="Write the cluster file.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure this machine, or take runs; fit a cluster to it."""
    runs = _checked(run, ranks, quick, measured, out)
    _check_backend(backend, runs, measured)
    from coordsim.analyse.calibrate.calibration import calibrate as fit
    from coordsim.analyse.calibrate.calibration import facts
    from coordsim.scenario import catalog
    from coordsim.scenario.loading import load_scenario

    if base not in catalog.names("cluster"):
        raise InputError.one("--base", "", base, f"{base!r} is not a cluster of the catalog", catalog.names("cluster"))
    cluster = load_scenario(cluster=base, workload="resnet50").cluster
    with Bar("measuring") as bar:

        def show(title: str, done: int, total: int) -> None:
            bar.begin(title)
            bar.update(done, total)

        measurement = _measurement(runs, ranks, quick, backend, measured, show)
        calibration = fit(measurement, cluster, show)
    if measurement.source == "SIMULATED":
        console.note("note: these runs are simulated: fitted is what they were simulated with; nothing was measured")
    files = _write(out, measured, measurement, calibration, catalog.read("cluster", base)) if out is not None else {}
    found = facts(calibration, files)
    if as_json:
        console.data_json(found)
    else:
        from coordsim.report.calibration import calibration_report

        console.data(calibration_report(found, console.page()))
    for kind, path in files.items():
        console.note(f"{kind}: {path}")
    console.next_command(_next(run, quick, measured, out))


def _checked(
    what: list[str], ranks: str | None, quick: bool, measured: Path | None, out: Path | None
) -> list[Path]:
    """The runs; none for this machine. Raises InputError for what does not go together."""
    here = what == [HERE]
    if HERE in what and not here:
        raise InputError.one("calibrate", "", " ".join(what), f"either {HERE!r} or runs, not both")
    for flag, given in (("--ranks", ranks is not None), ("--quick", quick), ("--from", measured is not None)):
        if given and not here:
            raise InputError.one(flag, "", None, f"goes with 'calibrate {HERE}'; runs are as they were recorded")
        if given and measured is not None and flag != "--from":
            raise InputError.one(flag, "", None, "--from measures nothing, it fits what was measured before")
    if ranks is not None:
        _numbers(ranks)
    if out is not None:
        from coordsim.analyse.calibrate.toml import check_target

        check_target(out)
    return [] if here else [Path(each) for each in what]


def _check_backend(backend: str | None, runs: list[Path], measured: Path | None) -> None:
    if backend is None:
        return
    if runs or measured is not None:
        raise InputError.one("--backend", "", backend, f"goes with 'calibrate {HERE}', which measures")
    from real_backend.measure.host import BACKENDS

    if backend not in BACKENDS:
        raise InputError.one("--backend", "", backend, f"{backend!r} is not a backend that is measured here", BACKENDS)


def _numbers(ranks: str) -> list[int]:
    """``2,4``. Raises InputError."""
    parts = ranks.split(",")
    most = max(RANKS_PER_CORE * len(os.sched_getaffinity(0)), 4)
    if not all(part.strip().isascii() and part.strip().isdecimal() and 2 <= int(part) <= most for part in parts):
        message = f"needs numbers of processes from 2 to {most} ({RANKS_PER_CORE} a core), such as 2,4"
        raise InputError.one("--ranks", "", ranks, message)
    return sorted({int(part) for part in parts})


def _measurement(
    runs: list[Path], ranks: str | None, quick: bool, backend: str | None, measured: Path | None, show: Any
) -> Measurement:
    if runs:
        from coordsim.analyse.calibrate.runs import read_runs

        return read_runs(runs)
    if measured is not None:
        from coordsim.record.measurement import read_measurement

        return read_measurement(measured)
    from real_backend.measure.host import measure

    with interrupt.unwinding():
        return measure(_numbers(ranks or ("2" if quick else "2,4")), quick, show, backend)


def _write(
    out: Path, measured: Path | None, measurement: Measurement, calibration: Any, base: dict[str, Any]
) -> dict[str, str]:
    """The cluster file, and the measurement beside it."""
    from coordsim.analyse.calibrate.toml import write_cluster
    from coordsim.record.measurement import write_measurement

    beside = out.with_suffix(".measurement.json")
    with interrupt.unwinding():
        if measured is None or measured.resolve() != beside.resolve():
            write_measurement(beside, measurement)
        write_cluster(out, calibration, base)
    return {"cluster": str(out), "measurement": str(beside)}


def _next(what: list[str], quick: bool, measured: Path | None, out: Path | None) -> str:
    if out is not None:
        place = out if out.is_absolute() else Path(out)
        return f"coordsim simulate --cluster {quote(str(place))} --workload resnet50 --ranks 2"
    words = ["coordsim", "calibrate", *map(quote, what)]
    words += ["--quick"] * quick + (["--from", quote(str(measured))] if measured is not None else [])
    return " ".join([*words, "--out", "cluster.toml"])
