"""``coordsim export``: a run for other people's tools."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from coordsim.cli import console
from coordsim.cli.progress import Bar
from coordsim.cli.steps import step_range

EVENTS = 200_000


class Format(StrEnum):
    """What ``--to`` takes."""

    perfetto = "perfetto"
    chrome = "chrome"
    goal = "goal"
    chakra = "chakra"
    horovod = "horovod"


_OPENS = {
    Format.perfetto: "https://ui.perfetto.dev opens it",
    Format.chrome: "https://ui.perfetto.dev and chrome://tracing open it",
    Format.goal: "LogGOPSim's txt2bin reads it",
    Format.chakra: "ASTRA-sim takes the prefix as --workload-configuration",
    Format.horovod: "chrome://tracing opens it",
}


def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of ranks' records (COORDSIM_RECORD), or a run directory.")
    ],
    to: Annotated[Format, typer.Option("--to", metavar="FORMAT", help="perfetto, chrome, goal, chakra or horovod.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to; chakra: a prefix. Default: named after RUN.", show_default=False),
    ] = None,
    steps: Annotated[
        str | None, typer.Option(metavar="A:B", help="Steps A up to B, B excluded.", show_default=False)
    ] = None,
    max_events: Annotated[int, typer.Option(metavar="N", help="Events at most; the rest is counted.", min=1)] = EVENTS,
) -> None:
    """A run as a file for another tool."""
    from coordsim.report.export import export_run

    with Bar("exporting") as bar:
        done = export_run(
            run, to.value, out, step_range(steps), max_events, lambda told: console.note(f"note: {told}"), bar
        )
    console.data(f"{done.path}: {done.what}")
    for sentence in (*done.left_out, _OPENS[to]):
        console.note(f"note: {sentence}")
    timeline = to is Format.horovod and done.negotiates
    console.next_command(f"coordsim validate timeline {quote(str(done.path))}" if timeline else
                         f"coordsim report {quote(str(run))}")  # fmt: skip
