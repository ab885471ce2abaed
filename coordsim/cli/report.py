"""``coordsim report``: what a run that was recorded or simulated says of itself."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from coordsim.cli import console
from coordsim.cli.steps import step_range

if TYPE_CHECKING:
    from coordsim.record.run import Run


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
    chosen = step_range(steps)
    from coordsim.analyse.answer.opened import answer_run
    from coordsim.record.run import open_run
    from coordsim.report.answer import answer_json, answer_screen

    opened = open_run(run, chosen)
    answer = answer_run(opened)
    if out is not None:
        from coordsim.record.store import write_run

        write_run(out, opened.trace, opened.facts, answer.findings)
    if as_json:
        console.data_json(answer_json(answer))
    else:
        console.data(answer_screen(answer, opened.name, console.page(), ranks))
    console.next_command(_next(opened, out))


def _next(run: Run, out: Path | None) -> str:
    from coordsim.record.run_facts import RunKind

    if out is not None:
        return f"coordsim report {quote(str(out))} --json"
    if run.facts.kind is RunKind.SIMULATED:
        return "coordsim simulate --explain"
    if run.kept is not None:
        return f"coordsim report {quote(str(run.path))} --json"
    return f"coordsim report {quote(str(run.path))} --out run"
