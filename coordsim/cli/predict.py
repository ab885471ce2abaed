"""``coordsim predict``: a recorded run's workload on another machine, at another scale."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from coordsim.cli import console
from coordsim.cli.kernels import title
from coordsim.cli.progress import Bar
from coordsim.errors import InputError


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of ranks' records, or a run with its ranks/.")],
    ranks: Annotated[int, typer.Option(metavar="N", min=1, help="GPUs of the job to predict.")],
    cluster: Annotated[str, typer.Option(metavar="NAME", help="Catalog name or .toml file.")] = "summit",
    control_plane: Annotated[
        str | None, typer.Option(metavar="NAME", help="As for simulate. Default: as recorded.", show_default=False)
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", min=2, help="Steps of each simulation.")] = 20,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any key of a scenario; repeatable.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep the scenario and its tensors, to simulate by hand.", show_default=False),
    ] = None,
) -> None:
    """A measured workload at scale, with how sure that is."""
    if out is not None and (not out.absolute().parent.is_dir() or (out.exists() and not out.is_dir())):
        raise InputError.one("--out", "", str(out), "needs a folder, or a name for one in a folder that exists")
    from coordsim.analyse.predict import measured_workload
    from coordsim.analyse.predict import predict as run_it
    from coordsim.analyse.predict.intervals import facts
    from coordsim.analyse.predict.place import write_scenario
    from coordsim.analyse.stragglers import stragglers
    from coordsim.record.run import open_run

    records = open_run(run).records
    if not records:
        message = "a run directory without its ranks' records: predict needs each rank's readiness (coordsim profile)"
        raise InputError.one(str(run), "", str(run), message)
    measured = measured_workload(records)
    plane = control_plane or measured.control_plane
    name, source = run.resolve().name, str(run)
    with Bar(title("simulating")) as bar:
        found = run_it(
            measured, name, source, ranks=ranks, cluster=cluster, control_plane=plane, steps=steps,
            overrides=overrides or (), progress=bar.update,
        )  # fmt: skip
    if out is not None:
        out.mkdir(exist_ok=True)
        write_scenario(out, measured, name, source)
    late = stragglers(records)
    told = facts(found) | {"late": late.verdict if late.late else None}
    if as_json:
        console.data_json(told)
    else:
        from coordsim.report.predict import prediction_report

        console.data(prediction_report(told, name, console.page()))
    flags = f"--ranks {ranks} --cluster {quote(cluster)} --control-plane {quote(plane)}"
    if out is None:
        console.next_command(f"coordsim predict {quote(str(run))} {flags} --out scenario")
    else:
        console.next_command(f"coordsim simulate {quote(str(out / 'scenario.toml'))} {flags} --explain")

