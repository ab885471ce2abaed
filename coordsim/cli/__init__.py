"""The command line, one file per verb.

Data on stdout; notes, progress and the next command worth typing on stderr. Exit codes: 0 ok, 1 a finding,
2 bad input, 3 environment, 130 interrupted. Everything heavy is imported inside the verbs, so that ``--help``
is immediate.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper

import typer

from coordsim import __version__
from coordsim.cli import (
    calibrate,
    catalog,
    demo,
    doctor,
    export,
    import_,
    interrupt,
    predict,
    profile,
    report,
    simulate,
    validate,
)
from coordsim.cli.guard import GuardedGroup

app = typer.Typer(
    cls=GuardedGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Simulate and explain the negotiation in data-parallel training, to the nanosecond.",
    epilog="Start with: coordsim demo",
)
app.command("demo")(demo.demo)
app.command("simulate")(simulate.simulate)
app.command(
    "profile", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)(profile.profile)
app.command("import")(import_.import_)
app.command("report")(report.report)
app.command("calibrate")(calibrate.calibrate)
app.command("predict")(predict.predict)
app.add_typer(validate.app, name="validate")
app.command("export")(export.export)
app.add_typer(catalog.app, name="catalog")
app.command("doctor")(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"coordsim {__version__}")
        raise typer.Exit


@app.callback()
def _coordsim(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Simulate and explain the negotiation in data-parallel training, to the nanosecond."""


def main() -> None:
    """Run the command line on ``sys.argv`` and exit."""
    interrupt.install()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no bar gets a question mark
    app(prog_name="coordsim")
