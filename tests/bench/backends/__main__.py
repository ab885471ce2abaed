"""``python -m tests.bench.backends [--quick] [--only WORK] [--launches 3] [--ranks 2,4,8] [--out FILE.json]``.

Arms take turns, so that a slow minute of the machine hits all. Horovod is found through COORDSIM_HOROVOD_PYTHON, a
Python that has it (``build_horovod.sh`` makes one), and its rows are skipped where there is none.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.bench.backends import samples
from tests.bench.backends.launch import ARMS, ROOT, LaunchFailed, busy_s, horovod_python, launch
from tests.bench.backends.samples import Report, Sample
from tests.bench.backends.table import markdown, replace_block
from tests.bench.backends.works import WORKS, Work


def plan(
    works: Sequence[Work], ranks: Sequence[int], launches: int, horovod: bool
) -> Iterator[tuple[Work, int, int, str]]:
    """Work, ranks, round and arm of each launch: all arms in turn, each round beginning with another one."""
    for work in works:
        arms = [arm for arm in work.arms if horovod or ARMS[arm].library != "horovod"]
        for number in (number for number in work.ranks if number in ranks):
            for turn in range(launches):
                first = turn % len(arms)
                yield from ((work, number, turn, arm) for arm in arms[first:] + arms[:first])


def measure(work: Work, ranks: int, turn: int, arm: str, quick: bool, horovod: str | None) -> Sample:
    """One launch; one that fails is a sample that says so."""
    facts: dict[str, Any] = {"work": work.name, "ranks": ranks, "arm": arm, "round": turn}
    began, busy, own = time.monotonic(), busy_s(), _own_s()
    try:
        results = launch(ARMS[arm], ranks, work.spec(arm, quick), horovod)
    except LaunchFailed as error:
        return Sample(**facts, error=str(error))
    after = busy_s()
    if busy is not None and after is not None:
        cores = (os.cpu_count() or 1) * (time.monotonic() - began)
        facts["others"] = round(max(after - busy - (_own_s() - own), 0.0) / cores, 3)
    return Sample(**facts, **samples.numbers(work.kind, results))


def _own_s() -> float:
    """CPU time of this process and of those that it has started and that have ended, and of theirs."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def machine(horovod: str | None) -> dict[str, str]:
    """What it ran on."""
    import torch

    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    found = {
        "CPU": model, "cores": str(os.cpu_count()), "Python": platform.python_version(),
        "torch": torch.__version__,
    }  # fmt: skip
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if commit.returncode == 0:
        found["commit"] = commit.stdout.strip()
    if horovod is not None:
        asked = [horovod, "-c", "import horovod; print(horovod.__version__)"]
        found["Horovod"] = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    return found


def run(works: Sequence[Work], ranks: Sequence[int], launches: int, quick: bool, out: Path | None) -> Report:
    """Launch after launch; ``out`` is rewritten after each, and says how far it came."""
    horovod = horovod_python()
    if horovod is None:
        print("no Horovod: set COORDSIM_HOROVOD_PYTHON to a Python that has it; its rows are skipped", file=sys.stderr)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    report = Report(today, machine(horovod), [])
    steps = list(plan(works, ranks, launches, horovod is not None))
    for number, (work, each, turn, arm) in enumerate(steps, 1):
        began = time.monotonic()
        sample = measure(work, each, turn, arm, quick, horovod)
        report.samples.append(sample)
        what = f"{work.title}, {each} ranks, {arm}"
        print(
            f"[{number}/{len(steps)}] {what}: {told(sample)} ({time.monotonic() - began:.0f} s)",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        if out is not None:
            samples.write(report, out)
    return report


def told(sample: Sample) -> str:
    """One launch in a few words."""
    steps = samples.summary([sample])
    if steps is not None:
        return f"{steps.median:.3f} ms a step"
    if sample.idle_share is not None:
        return f"{sample.idle_share:.2%} of a core"
    if sample.recorder:
        return "with over without " + ", ".join(f"{ratio:.3f}" for ratio in sample.recorder)
    return f"nothing: {sample.error}"


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every launch had a result, else 1; missed targets are no error."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.backends", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few steps and one launch, to see that it runs")
    parser.add_argument("--only", action="append", choices=tuple(WORKS), metavar="WORK", help=f"of {', '.join(WORKS)}")
    parser.add_argument("--launches", type=int, default=3, help="of every arm (default 3)")
    parser.add_argument("--ranks", default="2,4,8", help="of those that a work has (default 2,4,8)")
    parser.add_argument("--out", type=Path, help="every sample, as JSON")
    parser.add_argument("--markdown", type=Path, help="a page whose block of figures is replaced")
    parser.add_argument("--read", type=Path, help="measure nothing, take the samples of this file")
    given = parser.parse_args(arguments)
    if given.read is not None:
        report = samples.read(given.read)
    else:
        works = [WORKS[name] for name in given.only or WORKS]
        ranks = [int(number) for number in given.ranks.split(",")]
        report = run(works, ranks, 1 if given.quick else given.launches, given.quick, given.out)
    block = markdown(report)
    print(block, end="")
    if given.markdown is not None:
        replace_block(given.markdown, block)
    return int(any(each.error and each.error != "nothing was recorded" for each in report.samples))


if __name__ == "__main__":
    sys.exit(main())
