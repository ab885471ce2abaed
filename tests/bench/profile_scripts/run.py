"""Trains each kind of script with and without `coordsim profile` and compares: the parameters to the bit, and what a
step was said to be.

    python -m tests.bench.profile_scripts.run [NAME...]

Needs torch; transformers, accelerate, lightning and timm for the scripts of that name, which are skipped without them.
Not in CI.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from coordsim.record.ranks import RankRecord, read_folder
from coordsim.record.ranks.reader import SpanKind

HERE = Path(__file__).parent


@dataclass
class Kind:
    """One script, and what its record must say."""

    framework: str = "ddp"
    """ "coord" for our own engine."""
    passes: int = 1
    kinds: tuple[str, ...] = ("optimizer 0",)
    """Kinds of steps that must all come up, and no others ("closures" stands for any number of them)."""
    has: tuple[SpanKind, ...] = ()
    torchrun: bool = True
    needs: str = ""
    ranks: int = 2
    options: list[str] = field(default_factory=list)


INPUT, EVALUATION, CHECKPOINT = SpanKind.INPUT, SpanKind.EVALUATION, SpanKind.CHECKPOINT
SCRIPTS = {
    "ddp_tutorial": Kind(), "no_sync": Kind(passes=4), "grad_scaler": Kind(kinds=("optimizer 0", "skipped")),
    "static_graph": Kind(), "checkpointing": Kind(), "compile_inside": Kind(), "compile_outside": Kind(),
    "zero": Kind(), "join": Kind(), "fsdp1": Kind("fsdp1"), "fsdp2": Kind("fsdp2"),
    "gan": Kind(kinds=("optimizer 0", "optimizer 1"), has=(EVALUATION,)),
    "lbfgs": Kind(kinds=("closures", "optimizer 0")),
    "spawn": Kind(torchrun=False), "own_all_reduce": Kind("none"), "single": Kind("none", torchrun=False, ranks=1),
    "distributed_optimizer": Kind("coord"), "coord": Kind("coord"), "mingpt": Kind(has=(INPUT,)),
    "imagenet": Kind(has=(INPUT, EVALUATION, CHECKPOINT)),
    "hf_trainer": Kind(passes=2, has=(INPUT,), needs="transformers"),
    "accelerate_loop": Kind(passes=2, has=(INPUT,), needs="accelerate"),
    "lightning_trainer": Kind(has=(INPUT, SpanKind.CLOSURE), needs="lightning"), "fabric": Kind(needs="lightning"),
    "timm_train": Kind(has=(INPUT,), needs="timm"),
}  # fmt: skip


def call(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)


def weights(printed: str) -> list[tuple[str, str]]:
    """(rank, digest) of each rank; two ranks' lines may run into one another."""
    return sorted(re.findall(r"weights (\d+) ([0-9a-f]{64})", printed))


def faults(kind: Kind, records: list[RankRecord]) -> list[str]:
    """What the records say wrongly."""
    found = []
    if len(records) != kind.ranks:
        found.append(f"{len(records)} ranks")
    for record in records:
        steps = [step for step in record.steps if step.spans][1:21]
        who = f"rank {record.rank}"
        if len(steps) != 20:
            found.append(f"{who}: {len(steps)} steps with spans")
        framework = record.head["settings"].get("framework", "coord")
        if framework != kind.framework:
            found.append(f"{who}: framework {framework}")
        seen = {step.step_kind for step in steps}
        seen = {"closures" if each.startswith("closures") else each for each in seen}
        if seen != set(kind.kinds):
            found.append(f"{who}: kinds {sorted(seen)}")
        if "closures" not in kind.kinds:
            passes = Counter(len({each.place for each in step.spans if each.kind == 3}) for step in steps)
            if set(passes) != {kind.passes}:
                found.append(f"{who}: passes {dict(passes)}")
        for step in steps:
            forward = {each.place for each in step.spans if each.kind == SpanKind.FORWARD}
            backward = {each.place for each in step.spans if each.kind == SpanKind.BACKWARD}
            stepped = [each for each in step.spans if each.kind in (SpanKind.OPTIMIZER, SpanKind.OPTIMIZER_SKIPPED)]
            if forward != backward or not stepped or step.cpu is None:
                found.append(f"{who}: step {step.step} has forward {forward}, backward {backward}, {len(stepped)}")
                break
        wanted = [each for each in kind.has if each is not CHECKPOINT or record.rank == 0]  # rank 0 alone saves
        missing = [each.name for each in wanted if not any(s.kind == each for step in steps for s in step.spans)]
        if missing:
            found.append(f"{who}: no {', '.join(missing)}")
    return found


def tried(name: str, kind: Kind) -> str:
    """The verdict on one script."""
    if kind.needs and find_spec(kind.needs) is None:
        return f"skipped: no {kind.needs}"
    script = str(HERE / f"{name}.py")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(kind.ranks)]
    command = [*launcher, script] if kind.torchrun else [sys.executable, script]
    with tempfile.TemporaryDirectory() as name_of:
        folder = Path(name_of)
        alone = call(command, folder)
        ours = [sys.executable, "-m", "coordsim", "profile", "--out", "run", *kind.options, "--", *command]
        profiled = call(ours, folder)
        if alone.returncode or not weights(alone.stdout):
            return f"does not run by itself: {(alone.stderr.strip().splitlines() or ['?'])[-1][:100]}"
        if profiled.returncode:
            return f"fails under profile, {profiled.returncode}: {profiled.stderr.strip().splitlines()[-2][:200]}"
        found = [] if weights(alone.stdout) == weights(profiled.stdout) else ["other parameters"]
        if len(weights(alone.stdout)) != kind.ranks:
            found.append(f"{len(weights(alone.stdout))} ranks told their parameters")
        if "recording ended" in profiled.stderr:
            found.append(next(line for line in profiled.stderr.splitlines() if "recording ended" in line)[:200])
        found += faults(kind, read_folder(folder / "run" / "ranks"))
    return "; ".join(found) or "same parameters, right steps"


def main() -> None:
    names = sys.argv[1:] or list(SCRIPTS)
    for package in ("torch", "transformers", "accelerate", "lightning", "timm"):
        try:
            print(package, version(package))
        except PackageNotFoundError:
            print(package, "-")
    for name in names:
        print(f"{name:24}", tried(name, SCRIPTS[name]), flush=True)


if __name__ == "__main__":
    main()
