"""``coordsim demo``: two workloads, every control plane, one node to a whole machine, in less than a minute."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coordsim.cli import console, interrupt
from coordsim.cli.kernels import title
from coordsim.cli.progress import Bar
from coordsim.errors import InputError
from coordsim.protocol.planes import CACHED, PLANES

if TYPE_CHECKING:
    from coordsim.report.demo import Demo

CLUSTER = "summit"
WORKLOADS = ("stemdl", "resnet50")
WAYS = (*((plane, "none") for plane in PLANES), (CACHED.name, "layer"))
"""Pairs of (control plane, groups)."""
SIZES = (6, 96, 1536, 6000, 27_600)
STEPS = 5
QUICK_SIZES = SIZES[:3]
QUICK_STEPS = 2
FIGURE = "coordsim-demo"


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the figure.")] = Path("."),
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N", help=f"Steps of each simulation ({STEPS}; quick: {QUICK_STEPS}).", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Up to 1,536 GPUs only.")] = False,
) -> None:
    """Control planes on Summit, 6 to 27,600 GPUs."""
    if not out.is_dir():
        if out.exists() or not out.absolute().parent.is_dir():
            raise InputError.one("--out", "", str(out), f"{out} is no folder, and cannot become one")
        out.mkdir()
    sizes = QUICK_SIZES if quick else SIZES
    compared = _compare(sizes, steps if steps is not None else QUICK_STEPS if quick else STEPS)
    from coordsim.report.demo import demo_facts, demo_figure, demo_text
    from coordsim.report.figures import save

    paths = [out / f"{FIGURE}.{kind}" for kind in ("png", "svg")]
    figure = demo_figure(compared)
    with interrupt.unwinding():
        save(figure, paths)
    if as_json:
        console.data_json(demo_facts(compared, [str(path) for path in paths]))
    else:
        console.data(demo_text(compared, console.page()))
    console.note(f"figure: {paths[0]} and {paths[1].name}")
    console.next_command("coordsim simulate --control-plane coordinator --explain")


def _compare(sizes: tuple[int, ...], steps: int) -> Demo:
    """Simulate every case."""
    from coordsim.analyse.answer.simulated import answer_simulation
    from coordsim.report.demo import Case, Demo, case_of
    from coordsim.scenario.loading import load_scenario
    from coordsim.simulate.engine import simulate

    cases: list[Case] = []
    count = len(WORKLOADS) * len(sizes) * len(WAYS)
    with Bar(title("simulating")) as bar:
        for workload in WORKLOADS:
            for plane, groups in WAYS:
                for ranks in sizes:
                    scenario = load_scenario(
                        workload=workload, cluster=CLUSTER, ranks=ranks, control_plane=plane, groups=groups, steps=steps
                    )  # fmt: skip
                    answer = answer_simulation(simulate(scenario))
                    plane_used = scenario.control_plane
                    cycle_time_ns = plane_used.cycle_time_ns if plane_used.kind.negotiates else 0
                    cases.append(case_of(answer, workload, groups, cycle_time_ns))
                    bar.update(len(cases), count)
    noise = scenario.noise
    by_step = noise.step.sigma_ppm or noise.common.sigma_ppm or noise.tensor.sigma_ppm
    varies = by_step or (noise.stall_ppm and noise.stall_ns) or noise.detours
    return Demo(CLUSTER, steps, scenario.seed, tuple(cases), not varies)
