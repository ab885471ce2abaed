"""``coordsim catalog``: the clusters and workloads that come with coordsim, and the sources of their numbers."""

from __future__ import annotations

from typing import Annotated

import typer

from coordsim.cli import console

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.callback()
def catalog(
    ctx: typer.Context,
    as_json: Json = False,
    as_schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of a scenario file.")
    ] = False,
) -> None:
    """List clusters and workloads, or show one."""
    if ctx.invoked_subcommand is not None:
        return
    if as_schema:
        from coordsim.scenario.json_schema import scenario_schema

        console.data_json(scenario_schema())
        console.next_command("coordsim catalog")
        return
    from coordsim.report.catalog import catalog_facts, catalog_table

    facts = catalog_facts()
    if as_json:
        console.data_json(facts)
    else:
        console.data(catalog_table(facts, console.page()))
    console.next_command(f"coordsim catalog show {facts['clusters'][-1]['name']}")


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A cluster or a workload.")],
    as_json: Json = False,
) -> None:
    """Every number of one entry, with its source."""
    from coordsim.report.catalog import entry_facts, entry_table

    facts = entry_facts(name)
    if as_json:
        console.data_json(facts)
    else:
        console.data(entry_table(facts, console.page()))
    cluster, workload = (name, "resnet50") if facts["kind"] == "cluster" else (facts["timed_on"], name)
    console.next_command(f"coordsim simulate --cluster {cluster} --workload {workload}")
