"""What ``coordsim profile`` says of known causes, against what the ranks measured themselves.

    python -m tests.bench.profile_causes --kept runs.jsonl [--ranks 2 3 4] [--singles] [--pairs] [--quiet 100]
                                         [--savings 3] [--most 10]

Every cause of ``tests/real_backend/inject.py`` alone and every pair of them, one run each with real processes over
gloo; ``--quiet`` adds runs without a cause. ``--kept`` holds one line a run: a run that it has is not made again, and
the tables are printed from it (``--ranks`` alone prints what is there); ``--most`` ends after so many new runs.
``--savings`` makes so many pairs of runs, one with a cause and one without right after it, of each cause that a saving
is stated for: on a machine whose load changes, only neighbours can be compared.

A run is right when every part of the shown rank is within 10 % (2 ms at least) of what that rank's own clock measured,
when exactly the late ranks are named, and with the right place. A stated saving is compared with the measured one: the
step's mean here minus the mean of the run that lacks this cause and has the other one. Of two ranks that are late in
one run only the later one can be told, since each is the measure of the other; advice about a part is about all of its
causes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import median
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
Case = tuple[Cause, ...]
Named = tuple[str, Case]
SMALLEST_SAVING_S = 0.005
HARDLY_MS = 10.0
"""Two ranks of two that are late by amounts closer than this may be called equal: each is the other's measure."""
REPLAYED = ("input_stall", "between_steps")
"""Parts of all ranks whose absence is replayed; without a late rank no saving is stated about the others."""
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
        own = self.own[self.facts["shown_rank"]]
        error, name = self.worst_ms
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


def late_ranks(causes: Case, ranks: int) -> dict[int, set[str | None]]:
    """The ranks that the causes make late, and where: two causes on one rank are both right as its place."""
    late = [cause for cause in causes if cause.late is not None]
    if ranks == 2 and len({cause.late for cause in late}) == 2:
        late = [max(late, key=lambda cause: cause.ms)]
    places: dict[int, set[str | None]] = {}
    for cause in late:
        # Backward is late from the layer on that sleeps: its last tensors are named.
        names = {"backward", "tensor"} if cause.where == "backward" else {cause.where}
        places.setdefault(cause.late or 0, set()).update(names)
    return places


def names_right(causes: Case, run: Outcome) -> bool:
    """Whether exactly the late ranks are named, each with a place where it is late."""
    wanted, named = late_ranks(causes, len(run.own)), dict(run.late)
    late = sorted(cause.ms for cause in causes if cause.late is not None)
    if len(run.own) == 2 and len({cause.late for cause in causes} - {None}) == 2 and late[1] - late[0] < HARDLY_MS:
        return set(named) <= {cause.late for cause in causes}
    return set(named) == set(wanted) and all(named[rank] in places for rank, places in wanted.items())


@dataclass(frozen=True)
class Saving:
    """A stated saving beside the measured one, as shares of the step."""

    cause: str
    stated: float
    measured: float

    @property
    def off(self) -> float:
        return self.stated / self.measured - 1


def savings(causes: Case, run: Outcome, runs: dict[str, Outcome]) -> Iterator[Saving]:
    """What the run states about its causes, where the run without the cause exists."""
    step_s = run.facts["step_time_s"]["mean"]
    advice = run.facts["recommendation"]
    late = {entry["ranks"][0]: entry["costs_s"] for entry in run.facts["stragglers"]["late"]}
    for cause in causes:
        alike = [other for other in causes if other is cause or (cause.late is None and other.part == cause.part)]
        without = runs.get(case_name(tuple(other for other in causes if other not in alike)))
        alone_there = cause.late is not None and sum(other.late == cause.late for other in causes) == 1
        if without is None:
            continue
        measured = 1 - without.facts["step_time_s"]["mean"] / step_s
        if measured * step_s < SMALLEST_SAVING_S:
            continue  # the other rank's wait hides it: nothing is stated about such a cause
        if alone_there and cause.late in late and late[cause.late] is not None:
            yield Saving(cause.name, late[cause.late] / step_s, measured)
        elif cause.late is None and advice["about"] == cause.part and advice["saves"] is not None:
            yield Saving(cause.name, advice["saves"], measured)


def case_name(causes: Case) -> str:
    return " + ".join(cause.name for cause in causes) or "nothing"


def cases(singles: bool, pairs: bool) -> list[Case]:
    """Nothing, then the causes alone, then the pairs that one run can have."""
    chosen: list[Case] = [()]
    if singles or pairs:
        chosen += [(cause,) for cause in CAUSES]
    if pairs:
        chosen += [pair for pair in combinations(CAUSES, 2) if not set(pair[0].settings) & set(pair[1].settings)]
    return chosen


def kept_runs(path: Path) -> Iterator[tuple[int, str, Outcome]]:
    """(ranks, case, run) of the runs that a file keeps."""
    if path.exists():
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            own = {int(rank): parts for rank, parts in entry["run"]["own"].items()}
            yield entry["ranks"], entry["case"], Outcome(entry["run"]["facts"], own)


def keep(path: Path, ranks: int, case: str, run: Outcome) -> None:
    with path.open("a") as file:
        file.write(json.dumps({"ranks": ranks, "case": case, "run": asdict(run)}) + "\n")


def make_runs(path: Path, ranks: int, wanted: list[Named], most: int) -> int:
    """Make at most ``most`` of the runs that the file lacks; how many were made."""
    kept = [case for size, case, _ in kept_runs(path) if size == ranks]
    made = 0
    for number, (name, causes) in enumerate(wanted):
        if name in kept:
            kept.remove(name)
            continue
        if made == most:
            break
        made += 1
        settings = {key: value for cause in causes for key, value in cause.settings.items()}
        try:
            keep(path, ranks, name, profiled(settings, ranks))
        except RuntimeError as error:
            print(f"{name}: {error}", file=sys.stderr)
        if sys.stderr.isatty() or number % 10 == 9:
            print(f"{time.strftime('%H:%M:%S')} {ranks} ranks: {number + 1} of {len(wanted)} runs", file=sys.stderr)
    return made


def named_runs(singles: bool, pairs: bool, quiet: int, savings: int) -> list[Named]:
    """What is to be run, with the names under which it is kept."""
    wanted: list[Named] = [(case_name(causes), causes) for causes in cases(singles, pairs)]
    wanted += [("nothing", ())] * max(quiet - 1, 0)
    for _ in range(savings):
        for cause in CAUSES:
            if cause.late is not None or cause.part in REPLAYED:
                wanted += [(f"with {cause.name}", (cause,)), (f"without {cause.name}", ())]
    return wanted


def print_savings(path: Path, ranks: int) -> None:
    """Stated savings beside those of neighbouring runs without the cause."""
    kept = [(name, run) for size, name, run in kept_runs(path) if size == ranks]
    rows = []
    for cause in CAUSES:
        having = [run for name, run in kept if name == f"with {cause.name}"]
        lacking = [run for name, run in kept if name == f"without {cause.name}"]
        pairs = list(zip(having, lacking, strict=False))
        stated, measured = [], []
        for run, without in pairs:
            step_s, advice = run.facts["step_time_s"]["mean"], run.facts["recommendation"]
            measured.append(1 - without.facts["step_time_s"]["mean"] / step_s)
            stated.append(advice["saves"] if advice["about"] in ("late", cause.part) else None)
        if pairs:
            known = [saves for saves in stated if saves is not None]
            middle = f"{100 * median(known):.0f} %" if known else "-"
            rows.append((
                cause.name, str(len(pairs)), middle, f"{100 * median(measured):.0f} %",
                "; ".join(
                    f"{'-' if saves is None else round(100 * saves)} / {100 * saved:.0f}"
                    for saves, saved in zip(stated, measured, strict=True)
                ),
            ))  # fmt: skip
    if rows:
        print(f"\nSavings, {ranks} ranks: stated and measured, medians over pairs of neighbouring runs\n")
        print("| cause | pairs | stated | measured | each, % |\n|---|---|---|---|---|")
        print("\n".join("| " + " | ".join(row) + " |" for row in rows))


def print_tables(path: Path, ranks: int) -> None:
    """One row a run, then the counts."""
    runs: dict[str, Outcome] = {}
    quiet: list[Outcome] = []
    for size, name, run in kept_runs(path):
        if size == ranks and name == "nothing":
            quiet.append(run)
        if size == ranks:
            runs.setdefault(name, run)
    print(f"\n{ranks} ranks\n")
    print("| put in | step, ms | worst part, ms off | parts | named | places | stated / measured saving |")
    print("|---|---|---|---|---|---|---|")
    right_parts = right_names = total = 0
    found_savings: list[Saving] = []
    for causes in cases(True, True)[1:]:
        if case_name(causes) not in runs:
            continue
        run = runs[case_name(causes)]
        error, part = run.worst_ms
        stated = list(savings(causes, run, runs))
        found_savings += stated
        named = ", ".join(f"rank {rank}: {where}" for rank, where in run.late) or "nobody"
        total, right_parts, right_names = total + 1, right_parts + run.right, right_names + names_right(causes, run)
        shown = "; ".join(f"{100 * s.stated:.0f} / {100 * s.measured:.0f} %" for s in stated) or "-"
        print(
            f"| {case_name(causes)} | {1e3 * run.facts['step_time_s']['mean']:.1f} | {part} {error:.1f} | "
            f"{'right' if run.right else 'WRONG'} | {named} | {'right' if names_right(causes, run) else 'WRONG'} | "
            f"{shown} |"
        )
    within = sum(abs(s.off) <= 0.2 for s in found_savings)
    print(f"\nparts right {right_parts} of {total}; names and places right {right_names} of {total}; "
          f"savings within 20 % {within} of {len(found_savings)}")  # fmt: skip
    wrong = [run.facts["stragglers"]["verdict"] for run in quiet if run.late]
    print(f"runs without a cause: {len(quiet)}; somebody named in {len(wrong)}: {wrong}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kept", type=Path, required=True)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2])
    parser.add_argument("--singles", action="store_true")
    parser.add_argument("--pairs", action="store_true")
    parser.add_argument("--quiet", type=int, default=0)
    parser.add_argument("--savings", type=int, default=0)
    parser.add_argument("--most", type=int, default=1 << 30)
    chosen = parser.parse_args()
    left = chosen.most
    for ranks in chosen.ranks:
        if chosen.singles or chosen.pairs or chosen.quiet or chosen.savings:
            wanted = named_runs(chosen.singles, chosen.pairs, chosen.quiet, chosen.savings)
            left -= make_runs(chosen.kept, ranks, wanted, left)
    if left:
        for ranks in chosen.ranks:
            print_tables(chosen.kept, ranks)
            print_savings(chosen.kept, ranks)


if __name__ == "__main__":
    main()
