"""The options with which a verb is told a scenario, once for all verbs that take them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from coordsim.protocol.planes import CACHED, PLANES

ScenarioFile: TypeAlias = Annotated[
    Path | None,
    typer.Argument(
        metavar="SCENARIO.toml", help="A scenario; flags change it. None: STEMDL on Summit.", show_default=False
    ),
]
Cluster: TypeAlias = Annotated[
    str | None, typer.Option(metavar="NAME", help="Catalog name or .toml file.", show_default=False)
]
Workload: TypeAlias = Annotated[
    str | None, typer.Option(metavar="NAME", help="Catalog name, .toml file, or .csv of tensors.", show_default=False)
]
Ranks: TypeAlias = Annotated[
    int | None, typer.Option(metavar="N", help="GPUs; else the cluster's own number.", show_default=False)
]
ControlPlane: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"{', '.join(name for name in PLANES if name != CACHED.name)} or {CACHED.name} (default).",
        show_default=False,
    ),
]
Groups: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="none|layer|K", help="Groups of tensors; none is the default.", show_default=False),
]
Steps: TypeAlias = Annotated[int | None, typer.Option(metavar="N", help="Steps that count (20).", show_default=False)]
Seed: TypeAlias = Annotated[int | None, typer.Option(metavar="N", help="Seed of the noise (0).", show_default=False)]
Batch: TypeAlias = Annotated[
    int | None, typer.Option(metavar="B", help="Samples a GPU and step; compute follows.", show_default=False)
]
GlobalBatch: TypeAlias = Annotated[
    int | None,
    typer.Option(metavar="G", help="Samples of all GPUs a step, shared equally (strong scaling).", show_default=False),
]
Rate: TypeAlias = Annotated[
    float | None,
    typer.Option(metavar="R", help="Samples a second of one of your GPUs at this batch.", show_default=False),
]
Overrides: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any key of a scenario; repeatable.", show_default=False),
]
