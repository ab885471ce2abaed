"""``coordsim simulate``: one scenario, where its step goes, and what a change would save."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from coordsim.cli import console, interrupt
from coordsim.cli.kernels import title
from coordsim.cli.options import (
    Batch,
    Cluster,
    ControlPlane,
    GlobalBatch,
    Groups,
    Overrides,
    Ranks,
    Rate,
    ScenarioFile,
    Seed,
    Steps,
    Workload,
)
from coordsim.cli.progress import Bar
from coordsim.cli.request import Request

if TYPE_CHECKING:
    from coordsim.analyse.answer import Answer
    from coordsim.scenario.model import Scenario
    from coordsim.simulate.engine import EngineName, Simulation



def simulate(
    scenario: ScenarioFile = None,
    cluster: Cluster = None,
    workload: Workload = None,
    ranks: Ranks = None,
    control_plane: ControlPlane = None,
    groups: Groups = None,
    steps: Steps = None,
    seed: Seed = None,
    batch: Batch = None,
    global_batch: GlobalBatch = None,
    rate: Rate = None,
    engine: Annotated[str, typer.Option(metavar="auto|event|vector", help="Both give the same trace.")] = "auto",
    explain: Annotated[
        bool, typer.Option("--explain", help="Simulate again without each cause: what would it save?")
    ] = False,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="RUN_DIR", help="Also keep the trace.", show_default=False)
    ] = None,
) -> None:
    """Simulate one scenario; where its step goes."""
    request = Request(
        scenario, cluster, workload, ranks, control_plane, groups, steps, seed, batch, global_batch, rate, engine,
        tuple(overrides or ()),
    )
    described = request.load()
    if out is not None:
        from coordsim.record.store import check_target

        check_target(out)
    if scenario is None:
        console.note(_what_was_assumed(described))
    _answer(request, described, explain, as_json, out)


def _answer(request: Request, scenario: Scenario, explain: bool, as_json: bool, out: Path | None) -> None:
    from coordsim.analyse.answer.simulated import answer_simulation
    from coordsim.analyse.explain import explain as explain_it
    from coordsim.cli.advice import try_changes
    from coordsim.report.answer import answer_json, answer_screen
    from coordsim.report.answer.advice import WORTH_CHANGING
    from coordsim.simulate.engine import simulate as run

    if request.engine == "auto":
        from coordsim.simulate.vector.refusals import vector_refusals

        for refusal in vector_refusals(scenario):
            console.note(f"note: event engine, slow beyond some 1,000 ranks: {refusal.because} ({refusal.key})")
    with Bar(title("simulating")) as bar:
        simulation = run(scenario, cast("EngineName", request.engine), progress=bar.update)
        explained, tried = None, None
        if explain:
            bar.begin("removing each cause")
            explained = explain_it(simulation, bar.update)
        if explain and not as_json:
            bar.begin("trying changes")
            tried = try_changes(request, simulation, bar.update)
        answer = answer_simulation(simulation, explained, tried)
    replaced = out is not None and out.exists()
    if out is not None:
        _keep(out, simulation, answer)
    if as_json:
        console.data_json(answer_json(answer))
    else:
        console.data(answer_screen(answer, scenario.workload.name, console.page()))
    if out is not None:
        console.note(f"kept in {out}" + (", in the place of an earlier run" if replaced else ""))
    if tried and tried[0].saves.value >= WORTH_CHANGING and tried[0].command is not None:
        console.next_command(tried[0].command)
    elif explain:
        console.next_command(f"coordsim catalog show {_catalogued(scenario)}")
    else:
        console.next_command(request.command("--explain"))


def _what_was_assumed(scenario: Scenario) -> str:
    return (
        f"note: no scenario file; {scenario.workload.name} on {scenario.cluster.name}, "
        f"{scenario.ranks:,} GPUs, control plane {scenario.control_plane.name}"
    )


def _catalogued(scenario: Scenario) -> str:
    from coordsim.scenario import catalog

    known = catalog.names("cluster")
    return scenario.cluster.name if scenario.cluster.name in known else known[-1]


def _keep(out: Path, simulation: Simulation, answer: Answer) -> None:
    """Write the run directory; nothing in it depends on when or how fast it was made."""
    from coordsim import __version__
    from coordsim.record.run_facts import Provenance
    from coordsim.record.store import write_run

    facts = replace(answer.facts, provenance=Provenance(__version__))
    with interrupt.unwinding():
        write_run(out, simulation.trace, facts)
