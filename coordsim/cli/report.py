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
        typer.Option(metavar="A:B", help="Steps A up to B, B excluded.", show_default=False),
    ] = None,
    ranks: Annotated[bool, typer.Option("--ranks", help="The table of ranks, whether or not they differ.")] = False,
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

        console.data(run_report(found, run.name or str(run), console.page(), ranks))
    console.next_command(_next(run, out, found))


_OF_THE_COMMAND = (
    "command", "exit_code", "steps_wanted", "failure", "endings", "fate", "stopped", "world_sizes"
)  # fmt: skip
"""Of a profiled run's manifest, what its records do not say again."""


def _read(run: Path, steps: str | None) -> tuple[Trace, dict[str, Any]]:
    chosen = step_range(steps)
    manifest: dict[str, Any] = {}
    if (run / "manifest.json").is_file():
        from coordsim.record.store import read_run

        trace, manifest = read_run(run)
        if chosen is None:
            return trace, manifest
    from coordsim.record.ranks import folder_of, read_folder

    folder = folder_of(run)
    if folder is None:
        message = f"{run} keeps no ranks' records, so its steps were chosen when it was made"
        raise InputError.one("--steps", "", steps, message)
    from coordsim.analyse.recorded import merged_run

    trace, facts = merged_run(read_folder(folder), chosen)
    return trace, facts | {key: manifest[key] for key in _OF_THE_COMMAND if key in manifest}


def _next(run: Path, out: Path | None, found: dict[str, Any]) -> str:
    if out is not None:
        return f"coordsim report {quote(str(out))} --json"
    if (run / "manifest.json").is_file() and found["source"] == "real run":
        return f"coordsim report {quote(str(run))} --json"
    if found["source"] == "real run":
        return f"coordsim report {quote(str(run))} --out run"
    return "coordsim simulate --explain"
