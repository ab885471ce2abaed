"""Makes launches of the backend here, each a recorded run: ``python -m real_backend.launches FOLDER``.

One JSON file a launch, in the form of the recorded runs of real Horovod, settings by Horovod's names. A file that is
there is not made again, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from coordsim.record.files import whole_file
from coordsim.scenario.catalog import gradient_sizes
from real_backend.launches.network import address, inside, network, one_way_us, unavailable
from real_backend.launches.plan import Plan, plans
from real_backend.measure.host import measure as measured_here

TIMEOUT_S = 300
CONTROLLER = "coordsim"
SLEEPS_US = (50, 100, 1000)


def measure(folder: Path, ranks: Sequence[int], quick: bool) -> None:
    """Raises RuntimeError when a launch fails, with what its ranks said."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "primitives_sleep.json", _sleeps)
    for n in ranks:
        _write(folder / f"primitives_{CONTROLLER}_n{n}.json", lambda n=n: _intersections(n))
    why_not = unavailable()
    if why_not is not None:
        print(f"no emulated networks: {why_not}", file=sys.stderr, flush=True)
    wanted = plans(ranks, quick, why_not is None)
    for number, plan in enumerate(wanted):
        path = folder / f"{plan.case}.json"
        if not path.exists():
            print(f"{number + 1}/{len(wanted)} {plan.case}", file=sys.stderr, flush=True)
            _write(path, lambda plan=plan: launch(plan))


def launch(plan: Plan) -> dict[str, Any]:
    """One launch as the content of its file."""
    began = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="coordsim-here-") as results:
        job = Path(results, "job.json")
        job.write_text(json.dumps({
            "settings": _settings(plan), "workloads": plan.specs(), "results": results,
            "scaled": gradient_sizes("resnet50"),
        }))  # fmt: skip
        delay_us = _run(plan, job, Path(results))
        by_rank = [json.loads(Path(results, f"rank{rank}.json").read_text()) for rank in range(plan.ranks)]
    workloads = {
        name: {"spec": spec, "ranks": [of_rank[name] for of_rank in by_rank]} for name, spec in plan.specs().items()
    }
    return {
        "case": plan.case, "controller": CONTROLLER, "n": plan.ranks, "timeline": False,
        "env": {
            "HOROVOD_CYCLE_TIME": f"{plan.cycle_ms:g}", "HOROVOD_FUSION_THRESHOLD": str(plan.threshold_bytes),
            "HOROVOD_CACHE_CAPACITY": "1024" if plan.cache else "0",
        },
        "machine": f"{len(os.sched_getaffinity(0))} vCPU {_cpu()}, {platform.platform()}, "
                   f"torch {metadata.version('torch')}, coordsim {metadata.version('coordsim')}",
        "network": {"delay_us": delay_us, "wanted_us": plan.delay_ms * 1000},
        "started": began.isoformat(timespec="seconds"), "load": os.getloadavg()[0], "workloads": workloads,
    }  # fmt: skip


def _settings(plan: Plan) -> dict[str, Any]:
    return {
        "control_plane": "cached" if plan.cache else "coordinator", "cycle_time_ns": round(plan.cycle_ms * 1e6),
        "fusion_threshold_bytes": plan.threshold_bytes, "peer_timeout_ns": 60_000_000_000,
    }  # fmt: skip


def _run(plan: Plan, job: Path, results: Path) -> float:
    """What a message really took between the ranks, one way, us; 0 on one host."""
    base = {name: value for name, value in os.environ.items() if not name.startswith("COORDSIM_")}
    base |= {"WORLD_SIZE": str(plan.ranks), "OMP_NUM_THREADS": "1"}
    if plan.delay_ms:
        with network(plan.ranks, plan.delay_ms / 1e3) as hosts:
            base |= {"LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": address(0), "MASTER_PORT": "29577"}
            delay_us = one_way_us(hosts)
            _wait_for(plan, [inside(host, _command(job)) for host in hosts], base, results)
        return delay_us
    import torch.distributed as dist

    store = dist.TCPStore("127.0.0.1", 0, plan.ranks, is_master=True, wait_for_workers=False)
    base |= {
        "LOCAL_WORLD_SIZE": str(plan.ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }  # fmt: skip
    _wait_for(plan, [_command(job)] * plan.ranks, base, results)
    return 0.0


def _command(job: Path) -> list[str]:
    return [sys.executable, "-m", "real_backend.launches.worker", str(job)]


def _wait_for(plan: Plan, commands: Sequence[list[str]], base: dict[str, str], results: Path) -> None:
    logs = [results / f"rank{rank}.log" for rank in range(plan.ranks)]
    processes = []
    for rank, (command, log) in enumerate(zip(commands, logs, strict=True)):
        with log.open("wb") as output:
            local = "0" if plan.delay_ms else str(rank)
            facts = {**base, "RANK": str(rank), "LOCAL_RANK": local}
            processes.append(subprocess.Popen(command, stdout=output, stderr=output, env=facts))
    deadline = time.monotonic() + TIMEOUT_S
    try:
        for process in processes:
            process.wait(max(deadline - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{plan.case} had not ended after {TIMEOUT_S} s") from None
    finally:
        for process in processes:
            process.kill()
    failed = [rank for rank, process in enumerate(processes) if process.returncode]
    if failed:
        said = logs[failed[0]].read_text(errors="replace").strip().splitlines()[-1:] or ["nothing"]
        raise RuntimeError(f"{plan.case}: rank {failed[0]} ended with {processes[failed[0]].returncode}: {said[0]}")


def _sleeps() -> dict[str, dict[str, float]]:
    """What asking to sleep really takes, us."""
    slept = {}
    for asked in SLEEPS_US:
        times = []
        for _ in range(200):
            began = time.perf_counter()
            time.sleep(asked / 1e6)
            times.append((time.perf_counter() - began) * 1e6)
        tenths = statistics.quantiles(times, n=10)
        slept[str(asked)] = {"p10": tenths[0], "median": statistics.median(times), "p90": tenths[-1]}
    return slept


def _intersections(ranks: int) -> list[dict[str, Any]]:
    """What the control links take to intersect bit vectors, nothing else going on."""
    return [
        {
            "op": "allreduce_bits", "n": ranks, "bytes": each.nbytes, "reps": len(each.samples_ns),
            "median_us": statistics.median(each.samples_ns) / 1e3,
        }
        for each in measured_here([ranks], quick=True).of("and", crowded=True)
    ]  # fmt: skip


def _write(path: Path, make: Any) -> None:
    if not path.exists():
        content = make()
        with whole_file(path) as fresh:
            fresh.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m real_backend.launches", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ranks", default="2,4", help="numbers of ranks")
    parser.add_argument("--quick", action="store_true", help="few workloads and steps")
    chosen = parser.parse_args(arguments)
    try:
        measure(chosen.folder, [int(part) for part in chosen.ranks.split(",")], chosen.quick)
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
