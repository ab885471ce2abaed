"""``coordsim predict``: a recorded run with other numbers of ranks, on its own machine or on a described cluster."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from coordsim.cli import console
from coordsim.cli.kernels import title
from coordsim.cli.progress import Bar
from coordsim.errors import InputError

if TYPE_CHECKING:
    from coordsim.analyse.predict.changes import Changes, InputLaw


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of ranks' records, or a run with its ranks/.")],
    ranks: Annotated[int, typer.Option(metavar="N", min=1, help="Ranks (GPUs) of the job to predict.")],
    cluster: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Catalog name or .toml file. Default: the recorded machine.",
                     show_default=False),
    ] = None,
    control_plane: Annotated[
        str | None, typer.Option(metavar="NAME", help="As for simulate. Default: as recorded.", show_default=False)
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(metavar="none|layer|K", help="Groups of tensors. Default: as recorded.", show_default=False),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(metavar="B", help="Samples a rank and step; compute and input follow.", show_default=False),
    ] = None,
    global_batch: Annotated[
        int | None,
        typer.Option(metavar="G", help="Samples of all ranks a step, shared equally.", show_default=False),
    ] = None,
    recorded_batch: Annotated[
        int | None,
        typer.Option(metavar="B", help="Samples a rank and step when it was recorded.", show_default=False),
    ] = None,
    fixed: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Of forward and backward: what no batch changes (0).", show_default=False),
    ] = None,
    input_law: Annotated[
        str, typer.Option(metavar="constant|shared", help="Input at N: as recorded, or storage shared by all ranks.")
    ] = "constant",
    steps: Annotated[int, typer.Option(metavar="N", min=2, help="Steps of each simulation of a cluster.")] = 20,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any key of a cluster's scenario; repeatable.",
                     show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep a cluster's scenario and its tensors, to simulate by hand.",
                     show_default=False),
    ] = None,
) -> None:
    """A recorded run at another scale, with how sure that is."""
    _check_out(out, cluster)
    from coordsim.analyse.predict.asked import Asked, answer
    from coordsim.analyse.predict.place import write_scenario
    from coordsim.record.run import open_run

    records = open_run(run).records
    if not records:
        message = "a run directory without its ranks' records: predict needs each rank's readiness (coordsim profile)"
        raise InputError.one(str(run), "", str(run), message)
    changes = _changes(ranks, control_plane, groups, (batch, global_batch, recorded_batch, fixed), input_law)
    asked = Asked(run.resolve().name, str(run), changes, cluster, steps, tuple(overrides or ()))
    with Bar(title("simulating")) as bar:
        found = answer(records, asked, bar.update)
    if out is not None and found.workload is not None:
        out.mkdir(exist_ok=True)
        write_scenario(out, found.workload, asked.name, asked.source)
    if as_json:
        console.data_json(found.facts)
    else:
        from coordsim.report.predict import prediction_report

        console.data(prediction_report(found.facts, console.page()))
    _next(run, ranks, cluster, found.plane, out)


def _changes(
    ranks: int, control_plane: str | None, groups: str | None,
    sizes: tuple[int | None, int | None, int | None, str | None], input_law: str,
) -> Changes:  # fmt: skip
    """``sizes``: batch, global batch, recorded batch, fixed time. Raises InputError."""
    from coordsim import units
    from coordsim.analyse.predict.changes import INPUT_LAWS, Changes, batch_of

    if input_law not in INPUT_LAWS:
        raise InputError.one("--input-law", "", input_law, f"{input_law!r} is not a law of input", INPUT_LAWS)
    batch, global_batch, recorded, fixed = sizes
    fixed_ns = 0
    if fixed is not None:
        try:
            fixed_ns = units.parse_time(fixed)
        except ValueError as error:
            raise InputError.one("--fixed", "", fixed, str(error)) from error
    if batch is None and global_batch is None:
        for flag, value in (("--recorded-batch", recorded), ("--fixed", fixed)):
            if value is not None:
                raise InputError.one(flag, "", value, "goes with --batch or --global-batch")
    wanted = batch_of(ranks, batch, global_batch, recorded, fixed_ns)
    law: InputLaw = "shared" if input_law == "shared" else "constant"
    return Changes(ranks, wanted, law, control_plane, groups)


def _check_out(out: Path | None, cluster: str | None) -> None:
    if out is None:
        return
    if cluster in (None, "here"):
        raise InputError.one("--out", "", str(out), "goes with --cluster NAME: the recorded machine makes no scenario")
    if not out.absolute().parent.is_dir() or (out.exists() and not out.is_dir()):
        raise InputError.one("--out", "", str(out), "needs a folder, or a name for one in a folder that exists")


def _next(run: Path, ranks: int, cluster: str | None, plane: str, out: Path | None) -> None:
    if cluster in (None, "here"):
        console.next_command(f"coordsim predict {quote(str(run))} --ranks {2 * ranks}")
        return
    flags = f"--ranks {ranks} --cluster {quote(str(cluster))} --control-plane {quote(plane)}"
    if out is None:
        console.next_command(f"coordsim predict {quote(str(run))} {flags} --out scenario")
    else:
        console.next_command(f"coordsim simulate {quote(str(out / 'scenario.toml'))} {flags} --explain")
