"""What ``coordsim profile`` says of known causes, against what the ranks measured themselves.

    python -m tests.bench.profile_causes [--ranks 2] [--quiet 20] [--pairs]

Every cause of ``tests/real_backend/inject.py`` alone (and pairs of them), a run each with real processes over gloo; a
row for each: the largest error of a part on the shown rank, who was named and where, and the saving that was told
against what taking the cause away saved. ``--quiet``: so many runs without a cause, and how often anybody was named.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[1] / "real_backend" / "inject.py"


@dataclass(frozen=True)
class Cause:
    """Settings of the script, and what is right of them."""

    settings: dict[str, str]
    late: int | None = None
    """The rank that is late by it."""
    where: str | None = None
    part: str | None = None
    """The part that it is in."""
    ms: float = 0.0

    @property
    def name(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.settings.items()) or "nothing"


CAUSES = (
    Cause({"DATA": "30"}, part="input_stall"), Cause({"DATA_LATE": "30"}, 1, "input_stall", "input_stall", 30),
    Cause({"FWD": "25"}, 1, "forward", "forward", 25), Cause({"FWD_ALL": "20"}, part="forward"),
    Cause({"BWD": "20"}, 1, "backward", "backward", 20), Cause({"BWD": "20", "BWD_ALL": "1"}, part="backward"),
    Cause({"CLIP": "15"}, part="before_optimizer"), Cause({"OPT": "15"}, part="optimizer"),
    Cause({"OPT": "15", "OPT_LATE": "1"}, 1, "optimizer", "optimizer", 15),
    Cause({"LOG": "20"}, 0, "between_steps", "between_steps", 20), Cause({"EVAL": "60"}, part="between_steps"),
)  # fmt: skip
_OWN = {"data": "input_stall", "fwd": "forward", "clip": "before_optimizer", "opt": "optimizer"}
_BACKWARD = ("backward", "straggler_wait", "fusion_copy", "exposed_collective")


@dataclass
class Outcome:
    """One run."""

    facts: dict[str, Any]
    own: dict[int, dict[str, float]] = field(default_factory=dict)
    """Rank -> what it measured, ms."""

    @property
    def late(self) -> list[tuple[int, str]]:
        return [(each["ranks"][0], str(each["onset"]["from"])) for each in self.facts["stragglers"]["late"]]

    @property
    def worst_ms(self) -> tuple[float, str]:
        """The largest difference between a part that is told and what the shown rank measured."""
        parts, own = self.facts["breakdown_s"], self.own[self.facts["shown_rank"]]
        told = {name: 1e3 * parts[part] for name, part in _OWN.items()}
        told["bwd"] = 1e3 * sum(parts[part] or 0.0 for part in _BACKWARD)
        errors = {name: abs(value - own[name]) for name, value in told.items()}
        name = max(errors, key=lambda each: errors[each] - 0.1 * own[each])
        return errors[name], name

    @property
    def right(self) -> bool:
        """Every part within a tenth, or 2 ms, of what the shown rank measured."""
        parts, own = self.facts["breakdown_s"], self.own[self.facts["shown_rank"]]
        error, name = self.worst_ms
        del parts
        return error <= max(2.0, 0.1 * own[name])


def profiled(settings: dict[str, str], ranks: int) -> Outcome:
    """Run the script under ``coordsim profile``."""
    with tempfile.TemporaryDirectory() as folder:
        profile = [sys.executable, "-m", "coordsim", "profile", "--out", f"{folder}/run", "--json", "--"]
        torchrun = str(Path(sys.executable).parent / "torchrun")
        command = [*profile, torchrun, "--nproc-per-node", str(ranks), str(SCRIPT)]
        env = {**os.environ, **settings, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    own = {
        int(rank): {key: float(value) for key, value in re.findall(r"(\w+)=([\d.]+)", told)}
        for rank, told in re.findall(r"OWN rank=(\d+) ((?:\w+=[\d.]+ ?)+)", done.stderr)
    }
    return Outcome(json.loads(done.stdout), own)


def row(name: str, causes: tuple[Cause, ...], found: Outcome, quiet_s: float) -> str:
    """One row of the table."""
    error, part = found.worst_ms
    named = ", ".join(f"rank {rank}: {where}" for rank, where in found.late) or "nobody"
    wanted = ", ".join(f"rank {each.late}: {each.where}" for each in causes if each.late is not None) or "nobody"
    advice, step = found.facts["recommendation"], found.facts["step_time_s"]["mean"]
    told = "-" if advice["saves"] is None else f"{100 * advice['saves']:.0f} %"
    measured = f"{100 * (1 - quiet_s / step):.0f} %"
    largest = f"{advice['largest']['part']} {100 * advice['largest']['share']:.0f} %"
    verdict = "yes" if found.right else "NO"
    return (f"| {name} | {1e3 * step:.1f} | {verdict} ({part} {error:.1f}) | {wanted} | {named} | {largest} | {told} | "
            f"{measured} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--quiet", type=int, default=0)
    parser.add_argument("--pairs", type=int, default=0, help="so many pairs, evenly chosen")
    parser.add_argument("--no-singles", action="store_true")
    chosen = parser.parse_args()
    quiet_s = profiled({}, chosen.ranks).facts["step_time_s"]["median"]
    print(f"without a cause: {1e3 * quiet_s:.2f} ms a step, {chosen.ranks} ranks", flush=True)
    print("| put in | step, ms | parts right (worst, ms) | late | named | largest | saving told | cause away |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    cases: list[tuple[Cause, ...]] = [] if chosen.no_singles else [(each,) for each in CAUSES]
    pairs = [(one, two) for one, two in combinations(CAUSES, 2) if not set(one.settings) & set(two.settings)]
    if chosen.pairs:
        cases += pairs[:: max(len(pairs) // chosen.pairs, 1)][: chosen.pairs]
    for case in cases:
        settings = {key: value for each in case for key, value in each.settings.items()}
        print(row(" ".join(each.name for each in case), case, profiled(settings, chosen.ranks), quiet_s), flush=True)
    named = [profiled({}, chosen.ranks) for _ in range(chosen.quiet)]
    if named:
        wrong = [found.facts["stragglers"]["verdict"] for found in named if found.late]
        print(f"quiet runs: {len(named)}, somebody named in {len(wrong)}: {wrong}", flush=True)


if __name__ == "__main__":
    main()
