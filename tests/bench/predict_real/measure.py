"""Launches the jobs that a folder does not hold yet, one after the other, until a time is over."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.predict_real.plan import Job, cases, run_name

SCRIPT = Path(__file__).with_name("job.py")
STEPS = 40
LIMIT_S = 240
NICE = "-15"
DISTURBED, ATTEMPTS = 0.3, 1
"""Cores that other processes took meanwhile, from which a run is made again; and how often at most."""


def measure(folder: Path, minutes: float, most_ranks: int = 1 << 20) -> int:
    """How many runs are still missing when ``minutes`` are over."""
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * minutes
    with going_first():
        _measure(folder, until, most_ranks)
    return len(wanted(folder))


@contextmanager
def going_first() -> Iterator[None]:
    """This session before others' on the machine, as root; the launcher belongs to it, the ranks have their own."""
    group = Path("/proc/self/autogroup")
    if os.geteuid() or not group.is_file():
        yield
        return
    before = group.read_text().split()[-1]
    group.write_text(NICE)
    try:
        yield
    finally:
        group.write_text(before)


def _measure(folder: Path, until: float, most_ranks: int) -> None:
    while time.monotonic() < until:
        missing = [case for case in wanted(folder) if case[2] <= most_ranks]
        if not missing:
            break
        launch(folder, *missing[0])


def wanted(folder: Path) -> list[tuple[Job, str, int]]:
    """Runs that are not there; and behind them those in which other processes took too much, up to a few times."""
    found = {case: _facts(folder / run_name(*case)) for case in cases()}
    disturbed = [
        case for case, facts in found.items()
        if facts is not None and facts["others_cores"] > DISTURBED and facts["attempt"] < ATTEMPTS
    ]
    disturbed.sort(key=lambda case: (found[case] or {})["attempt"])
    return [case for case, facts in found.items() if facts is None] + disturbed


def _facts(run: Path) -> dict[str, Any] | None:
    path = run / "bench.json"
    return json.loads(path.read_text()) if path.is_file() else None


def _busy_s() -> float:
    """CPU time that all processes of the machine have taken."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    ticks = [int(word) for word in words[:8]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _ours_s() -> float:
    """CPU time of this process's children that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def launch(folder: Path, job: Job, kind: str, ranks: int) -> None:
    """Profile one job into ``folder``; what the machine was doing meanwhile is kept beside the run."""
    out = folder / run_name(job, kind, ranks)
    before = _facts(out)
    fresh = out if before is None else out.with_name(f".{out.name}")
    torchrun = str(Path(sys.executable).parent / "torchrun")
    command = [
        sys.executable, "-m", "coordsim", "profile", "--steps", str(STEPS), "--out", str(fresh), "--json", "--",
        torchrun, "--nproc-per-node", str(ranks), str(SCRIPT), "--kind", kind, *job.arguments,
    ]  # fmt: skip
    load, began, busy_s, ours_s = os.getloadavg(), time.monotonic(), _busy_s(), _ours_s()
    nice = os.environ.get("BENCH_NICE", NICE if os.geteuid() == 0 else "")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "BENCH_NICE": nice}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    took = time.monotonic() - began
    others = max(_busy_s() - busy_s - (_ours_s() - ours_s), 0.0) / took
    print(f"{out.name}: exit code {done.returncode}, {took:.0f} s, others took {others:.2f} cores", flush=True)
    if done.returncode:
        print(done.stderr[-2000:], flush=True)
        return
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"), "job": job.name, "kind": kind, "ranks": ranks,
        "load_before": load[0], "load_after": os.getloadavg()[0], "took_s": took, "command": command[8:],
        "cores": len(os.sched_getaffinity(0)), "others_cores": others, "nice": nice,
        "attempt": 1 + (0 if before is None else before["attempt"]),
    }  # fmt: skip
    if before is not None and before["others_cores"] <= others:  # the earlier one was quieter
        shutil.rmtree(fresh)
        facts = {**before, "attempt": facts["attempt"]}
    elif before is not None:
        shutil.rmtree(out)
        fresh.rename(out)
    (out / "bench.json").write_text(json.dumps(facts, indent=1) + "\n")
