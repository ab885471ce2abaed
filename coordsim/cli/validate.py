"""``coordsim validate``: is the model right? Against recorded runs, their timelines, and publications."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordsim.cli import console
from coordsim.cli.kernels import title
from coordsim.cli.progress import Bar

if TYPE_CHECKING:
    from coordsim.record.horovod_runs import RecordedRuns

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Is the model right? Measured against predicted.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
FINDING = 1


@app.command("recorded")
def recorded(
    dir: Annotated[Path, typer.Argument(metavar="DIR", help="Recorded runs of real Horovod (docs/validation.md).")],
    fit: Annotated[
        list[str] | None,
        typer.Option("--fit", metavar="GLOB", help="Files to fit costs on (mpi_n2_*); repeatable.", show_default=False),
    ] = None,
    cores: Annotated[
        int | None,
        typer.Option(metavar="C", min=1, help="Cores all ranks shared, where no file says.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Step times of real Horovod: fit some, predict the rest."""
    from coordsim.record.horovod_runs import read_folder

    runs = read_folder(dir)
    with Bar(title("fitting")) as bar:
        from coordsim.analyse.validate.recorded.judge import DEFAULT_FIT, validate
        from coordsim.analyse.validate.recorded.summary import facts

        found = facts(validate(runs, tuple(fit or DEFAULT_FIT), cores, _stages(bar)))
    if as_json:
        console.data_json(found)
    else:
        from coordsim.report.validation import validation_report

        console.data(validation_report(found, console.page()))
    console.next_command(_after_recorded(dir, runs, found))
    if found["missed"]:
        raise typer.Exit(FINDING)


@app.command("here")
def here(
    ranks: Annotated[str, typer.Option(metavar="N,N", help="Numbers of ranks; 2 is what costs are fitted on.")] = "2,4",
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where launches are kept; those that are there are not made again.")
    ] = Path("coordsim-here"),
    quick: Annotated[bool, typer.Option("--quick", help="Few workloads and steps: does it run?")] = False,
    as_json: Json = False,
) -> None:
    """The real backend on this machine: fit some, predict the rest."""
    from coordsim.analyse.validate.here import judge, measure

    measure(_folder(out), _numbers(ranks), quick)
    with Bar(title("fitting")) as bar:
        found = judge(out, _stages(bar))
    if as_json:
        console.data_json(found)
    else:
        from coordsim.report.validation import here_report

        console.data(here_report(found, console.page()))
    console.next_command(f"coordsim validate here --out {quote(str(out))} --json")
    if found["missed"]:
        raise typer.Exit(FINDING)


@app.command("scale")
def scale(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where jobs are kept; those that are there are not made again.")
    ] = Path("coordsim-scale"),
    quick: Annotated[bool, typer.Option("--quick", help="32 ranks at most: does it run?")] = False,
    as_json: Json = False,
) -> None:
    """Control alone: fit 2 to 16 ranks, predict 32 and 64 here."""
    from coordsim.analyse.validate.scale import judge, measure

    with Bar("negotiating") as bar:
        found = judge(measure(_folder(out), quick, bar.update))
    if as_json:
        console.data_json(found)
    else:
        from coordsim.report.validation import scale_report

        console.data(scale_report(found, console.page()))
    console.next_command(f"coordsim validate scale --out {quote(str(out))} --json")
    if found["missed"]:
        raise typer.Exit(FINDING)


@app.command("timeline")
def timeline(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A Horovod timeline, .json or .json.gz.")],
    ranks: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Ranks, where the file cannot tell.", show_default=False)
    ] = None,
    cache_capacity: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Else from the recording, or 1,024.", show_default=False),
    ] = None,
    fusion_threshold: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Else from the recording, or 128MiB.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Decisions of real Horovod: what was fused, when, against ours."""
    from coordsim.report.decisions import timeline_facts, timeline_table

    threshold = None if fusion_threshold is None else _size("--fusion-threshold", fusion_threshold)
    facts = timeline_facts(
        file, ranks=ranks, cache_capacity=cache_capacity, fusion_threshold_bytes=threshold
    )
    if as_json:
        console.data_json(facts)
    else:
        console.data(timeline_table(facts, console.page()))
    launches = any(file.parent.glob("*_n[0-9]*.json"))
    console.next_command(
        f"coordsim validate recorded {quote(str(file.parent))}" if launches else "coordsim validate published"
    )
    if facts["missed"]:
        raise typer.Exit(FINDING)


@app.command("published")
def published(as_json: Json = False) -> None:
    """Published numbers, with era, interval and what was fitted."""
    from coordsim.report.published import published_facts, published_table

    with Bar(title("simulating")) as bar:
        facts = published_facts(bar.update)
    if as_json:
        console.data_json(facts)
    else:
        console.data(published_table(facts, console.page()))
    console.next_command("coordsim simulate --explain")
    if facts["missed"]:
        raise typer.Exit(FINDING)


def _after_recorded(folder: Path, runs: RecordedRuns, found: dict[str, Any]) -> str:
    """Fit what has not been fitted yet, where it can be predicted from; else look at decisions; else further."""
    tried = {each["controller"] for each in found["fit"]}
    for launch in runs.launches:
        glob = f"{launch.controller}_n{launch.ranks}_*"
        fresh = launch.controller not in tried and not launch.timeline and launch.file.match(glob)
        if fresh and glob not in found["fitted_on"]:
            return f"coordsim validate recorded {quote(str(folder))} --fit {quote(glob)}"
    timelines = sorted(folder.glob("*.timeline.json*"))
    return f"coordsim validate timeline {quote(str(timelines[0]))}" if timelines else "coordsim validate published"


def _stages(bar: Bar) -> Callable[[str, int, int], None]:
    """For what has several things to do, one after another, and names each."""

    def show(what: str, done: int, total: int) -> None:
        bar.begin(what)
        bar.update(done, total)

    return show


def _numbers(ranks: str) -> list[int]:
    from coordsim.errors import InputError

    parts = ranks.split(",")
    if not all(part.isdecimal() and 1 < int(part) <= 64 for part in parts) or "2" not in parts:
        raise InputError.one("--ranks", "", ranks, 'needs numbers from 2 to 64, 2 among them, such as "2,4"')
    return sorted({int(part) for part in parts})


def _folder(out: Path) -> Path:
    from coordsim.errors import InputError

    if out.exists() and not out.is_dir():
        raise InputError.one("--out", "", str(out), f"{out} is no folder")
    if not out.absolute().parent.is_dir():
        raise InputError.one("--out", "", str(out), f"folder {out.absolute().parent} does not exist")
    return out


def _size(flag: str, value: str) -> int:
    from coordsim.errors import InputError
    from coordsim.units import parse_bytes

    try:
        return parse_bytes(value)
    except ValueError as error:
        raise InputError.one(flag, "", value, str(error)) from None
