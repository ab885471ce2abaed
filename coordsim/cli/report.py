"""``coordsim report``: what a run that was recorded or simulated says of itself."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordsim.cli import console
from coordsim.cli.steps import step_range
from coordsim.errors import InputError

if TYPE_CHECKING:
    from coordsim.record.trace import Trace


def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of ranks' records (COORDSIM_RECORD), or a run directory.")
    ],
    steps: Annotated[
        str | None,
        typer.Option(metavar="A:B", help="Of ranks' records: steps A up to B, B excluded.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="RUN_DIR", help="Store the merged records as a run.", show_default=False)
    ] = None,
) -> None:
    """Where a run's steps went, and who was last."""
    trace, facts = _read(run, steps)
    from coordsim.analyse.run_summary import run_summary

    found = run_summary(trace, facts)
    if out is not None:
        from coordsim.record.store import write_run

        write_run(out, trace, facts)
    if as_json:
        console.data_json(found)
    else:
        from coordsim.report.run import run_report

        console.data(run_report(found, run.name or str(run), console.page()))
    console.next_command(_next(run, out, found))


def _read(run: Path, steps: str | None) -> tuple[Trace, dict[str, Any]]:
    if (run / "manifest.json").is_file():
        from coordsim.record.store import read_run

        if steps is not None:
            raise InputError.one("--steps", "", steps, f"{run} is a run directory; steps are chosen when it is made")
        return read_run(run)
    chosen = step_range(steps)
    from coordsim.analyse.recorded import merged_run
    from coordsim.record.ranks import read_folder

    return merged_run(read_folder(run), chosen)


def _next(run: Path, out: Path | None, found: dict[str, Any]) -> str:
    if out is not None:
        return f"coordsim report {quote(str(out))} --json"
    if (run / "manifest.json").is_file() and found["source"] == "real run":
        return f"coordsim report {quote(str(run))} --json"
    if found["source"] == "real run":
        return f"coordsim report {quote(str(run))} --out run"
    return "coordsim simulate --explain"
