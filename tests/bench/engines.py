"""The speed table: ``python -m tests.bench.engines [--quick]``.

CPU seconds of one thread, each as a ratio to something run beside it in the same process: NumPy drawing as many
numbers as the scenario has gradients (PCG64 ``standard_exponential((256, 161))`` in chunks), or the event
engine. Trace on; noise per step, rank and tensor; ResNet-50 on Summit; compiled code cached (a warm-up runs
first). Peak memory is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import numpy as np

from coordsim.scenario import Scenario
from coordsim.scenario.loading import load_scenario
from coordsim.simulate import event, vector
from coordsim.simulate.problem import Problem

NOISE = ("noise.rank.sigma=1.5%", "noise.step.sigma=1%", "noise.tensor.sigma=2%")


def resnet50(plane: str, ranks: int, steps: int, *overrides: str) -> Scenario:
    return load_scenario(
        workload="resnet50", cluster="summit", ranks=ranks, control_plane=plane, steps=steps,
        overrides=[*NOISE, *overrides],
    )  # fmt: skip


def vector_s(scenario: Scenario) -> float:
    began = time.process_time()
    vector.run(Problem(scenario))
    return time.process_time() - began


def event_s(scenario: Scenario) -> float:
    began = time.process_time()
    event.run(Problem(scenario))
    return time.process_time() - began


def numpy_s(ranks: int, steps: int) -> float:
    """As many exponential draws as ``ranks`` x 161 x ``steps``, with nothing done to them."""
    generator = np.random.Generator(np.random.PCG64(0))
    began = time.process_time()
    for _ in range(ranks * steps // 256):
        generator.standard_exponential((256, 161))
    return time.process_time() - began


def peak_mb(ranks: int, plane: str) -> int:
    """Peak memory of a fresh process that simulates two steps."""
    code = (
        "import resource; from tests.bench.engines import *;"
        f"vector.run(Problem(resnet50({plane!r}, {ranks}, 2)));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def second_call_s() -> float:
    """Wall clock of the whole command, machine code cached."""
    command = [sys.executable, "-m", "coordsim", "simulate", "--workload", "stemdl", "--cluster", "summit"]
    command += ["--ranks", "27600", "--control-plane", "cached", "--json"]
    subprocess.run(command, capture_output=True, check=True)
    began = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - began


HEAVY = ("numba", "pandas", "scipy", "matplotlib", "torch")


def imported_by_help() -> list[str]:
    """Which of ``HEAVY`` a ``coordsim --help`` loads."""
    code = (
        "import sys; from coordsim.cli import main; sys.argv = ['coordsim', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print('loaded:', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return out.rsplit("loaded:", 1)[1].split()


def row(what: str, value: str, target: str, reached: bool) -> None:
    print(f"{what:<62} {value:>18}  {target:<18} {'reached' if reached else 'MISSED'}", flush=True)


def main(quick: bool, rounds: int = 3) -> None:
    ranks, steps = (2760, 20) if quick else (27_600, 100)
    planes = [("coordinator", 1.0, ()), ("cached", 1.0, ()), ("hierarchical", 2.0, ("control_plane.radix=16",))]
    for plane, target, extra in planes:
        vector_s(resnet50(plane, ranks, 1, *extra))
        ratios, seconds = [], []
        for _ in range(rounds):
            draws = numpy_s(ranks, steps)
            seconds.append(vector_s(resnet50(plane, ranks, steps, *extra)))
            ratios.append(seconds[-1] / draws)
        ratio = float(np.median(ratios))
        what = f"vector {plane}, {ranks:,} x 161 x {steps} ({np.median(seconds):.2f} CPU s) / NumPy draws"
        row(what, f"{ratio:.2f}", f"<= {target}", ratio <= target)
    ranks, steps = (512, 5) if quick else (4096, 50)
    slow = event_s(resnet50("coordinator", ranks, 1)) / 2
    fast = vector_s(resnet50("coordinator", ranks, steps)) / (steps + 1)
    row(f"event / vector, coordinator, {ranks:,} ranks, a step", f"{slow / fast:,.0f}", ">= 1,000", slow / fast >= 1000)
    for ranks, limit in ((27_600, 500),) if quick else ((27_600, 500), (1_000_000, 1000)):
        for plane in ("coordinator", "cached", "hierarchical"):
            mb = peak_mb(ranks, plane)
            row(f"peak memory, vector {plane}, {ranks:,} ranks", f"{mb} MB", f"<= {limit} MB", mb <= limit)
    wall_s = second_call_s()
    row("second `simulate --json`, stemdl, 27,600 ranks, wall clock", f"{wall_s:.1f} s", "<= 5 s", wall_s <= 5)
    heavy = imported_by_help()
    row("`coordsim --help` imports", ", ".join(heavy) or "nothing heavy", "none of HEAVY", not heavy)
    if not quick:
        began = time.process_time()
        event.run(Problem(resnet50("coordinator", 27_600, 1)))
        mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        cpu = (time.process_time() - began) / 2
        row(f"event, coordinator, 27,600 ranks ({cpu:.0f} CPU s a step)", f"{mb} MB", "<= 2048 MB", mb <= 2048)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    main(parser.parse_args().quick)
