"""What one commit answers to a fixed list of questions: traces, digests, resolved scenarios, messages, verbs.

Run by :mod:`tests.bench.compare_commits` with a commit's tree first on ``PYTHONPATH``, in an empty folder:
``python observations.py INPUTS OUT.json PART...``. Nothing here is compared; OUT.json maps each question to its answer.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve()
PLANES = ("ideal", "ddp", "point-to-point", "coordinator", "hierarchical", "cached")
RANDOM = 24
"""Random scenarios of each kind, simulated by both engines."""
KINDS = (
    "random_scenario", "small_cache_scenario", "exchange_scenario", "two_clock_scenario", "shuffled_scenario",
    "successive_scenario",
)  # fmt: skip
JOB = """ranks = 12
steps = 5
seed = 7
cluster = "summit"

[workload]
name = "small"
tensors = "small.csv"
forward = "3ms"
optimizer = "0.5ms"
batch = 32

[noise]
step = { sigma = "3%", correlation = 0.5 }
"""
LIST = "name,shape,ready\nfc.bias,10,1ms\nfc.weight,10x64,2ms\nconv.bias,64,3.5ms\nconv.weight,64x3x7x7,5ms\n"


def resolved_scenarios() -> Iterator[tuple[str, str]]:
    """Every workload on every cluster, and every control plane, as the scenarios that they resolve to."""
    from coordsim.errors import InputError
    from coordsim.scenario import catalog, load_scenario
    from coordsim.scenario.resolved import resolved, scenario_hash

    def answer(**changes: object) -> str:
        try:
            scenario = load_scenario(**changes)  # type: ignore[arg-type]
        except InputError as error:
            return str(error)
        return scenario_hash(scenario) + json.dumps(resolved(scenario)) + repr(scenario.cluster.ranges)

    for workload in catalog.names("workload"):
        for cluster in catalog.names("cluster"):
            yield f"resolved {workload} on {cluster}", answer(workload=workload, cluster=cluster)
        yield f"resolved {workload} at batch 7", answer(workload=workload, cluster="dgx-1", batch=7)
    for plane in PLANES:
        yield f"resolved {plane}", answer(workload="resnet50", cluster="summit", control_plane=plane, groups="layer")


def wrong_scenarios() -> Iterator[tuple[str, str]]:
    """The messages of this checkout's wrong scenarios."""
    spec = importlib.util.spec_from_file_location("wrong", HERE.parents[1] / "scenario" / "wrong_scenarios.py")
    assert spec is not None
    assert spec.loader is not None
    wrong = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(wrong)
    folder = Path("wrong")
    folder.mkdir()
    yield from wrong.messages(folder)


def traces() -> Iterator[tuple[str, str]]:
    """Digests, step times and schedules' hashes of scenarios made in code, by both engines."""
    from coordsim.errors import Refused
    from coordsim.record.breakdown import breakdown
    from coordsim.simulate.engine import simulate
    from tests import scenarios

    for kind in KINDS:
        for seed in range(RANDOM):
            scenario = getattr(scenarios, kind)(seed)
            for engine in ("event", "vector"):
                try:
                    trace = simulate(scenario, engine).trace  # type: ignore[arg-type]
                except Refused as error:
                    yield f"trace {kind} {seed} {engine}", str(error)
                    continue
                parts = {name: part.tolist() for name, part in breakdown(trace).items()}
                yield f"digest {kind} {seed} {engine}", trace.digest()
                tables = hashlib.sha256()
                for table in (trace.cycles, trace.responses, trace.steps):
                    for name, column in table.items():
                        tables.update(name.encode() + column.tobytes())
                hashes = trace.cycles["schedule_hash"].tolist()
                facts = [tables.hexdigest(), trace.blocking, sorted(trace.missing), parts, hashes]
                yield f"trace {kind} {seed} {engine}", json.dumps(facts)


def commands(inputs: Path) -> Iterator[tuple[str, ...]]:
    """The command lines, in order: later ones read what earlier ones wrote to the working directory."""
    data = inputs / "data"
    for plane in PLANES:
        yield "simulate", "job.toml", "--control-plane", plane, "--json", "--out", f"run-{plane}"
        yield "report", f"run-{plane}", "--json"
    yield "simulate", "job.toml"
    yield "simulate", "job.toml", "--explain", "--json"
    yield "simulate", "job.toml", "--engine", "event", "--json"
    yield "simulate", "--workload", "resnet50", "--cluster", "dgx-1", "--ranks", "16", "--steps", "3", "--json"
    yield "simulate", "job.toml", "--set", "control_plane.cycletime=1ms"
    yield "report", "run-cached"
    yield "report", "run-cached", "--steps", "1:3", "--json"
    for form in ("chrome", "goal", "horovod", "chakra", "perfetto"):
        yield "export", "run-cached", "--to", form, "--out", f"exported.{form}"
    recordings = {
        "kineto": data / "kineto" / "two_passes.json",
        "flight-recorder": data / "flight_recorder" / "ring",
        "chakra": data / "execution_traces" / "et_three_steps.json",
        "ddp-logging": data / "ddp_logging",
        "nccl-tests": data / "nccl_tests" / "all_reduce_2nodes.txt",
        "nccl-inspector": data / "nccl_inspector" / "release",
        "nccl-debug": data / "nccl_debug" / "calls_mpirun.log",
        "gloo-benchmark": data / "gloo_benchmark" / "allreduce_ring_chunked_4.txt",
        "horovod": data / "horovod_runs" / "tl_mpi_n2_cache.timeline.json.gz",
    }
    for form, path in recordings.items():
        yield "import", str(path), "--json"
        yield "import", str(path), "--out", f"imported-{form}"
        yield "report", f"imported-{form}", "--json"
    if (records := inputs / "records").is_dir():
        yield "report", str(records), "--json", "--out", "run-recorded"
        yield "report", "run-recorded"
        yield "export", str(records), "--to", "chrome", "--out", "recorded.chrome"
        yield "predict", str(records), "--ranks", "60", "--steps", "3", "--json", "--out", "predicted"
        yield "calibrate", str(records), "--json", "--out", "fitted.toml"
    yield "validate", "recorded", str(data / "horovod_runs"), "--json"
    yield "validate", "timeline", str(data / "horovod_runs" / "tl_gloo_n4_cache.timeline.json.gz"), "--json"
    yield "validate", "published", "--json"
    yield "catalog", "--json"
    yield "catalog", "--schema"
    yield "catalog", "show", "summit", "--json"
    yield "demo", "--quick", "--json", "--out", "."


def verbs(inputs: Path) -> Iterator[tuple[str, str]]:
    """What each command prints, how it ends, and the bytes of every file that it leaves."""
    Path("small.csv").write_text(LIST)
    Path("job.toml").write_text(JOB)
    known: set[Path] = set(Path().rglob("*"))
    for words in commands(inputs):
        done = subprocess.run(
            [sys.executable, "-m", "coordsim", *words], capture_output=True, text=True, check=False, timeout=600
        )
        name = "coordsim " + " ".join(words).replace(str(inputs), "INPUTS")
        answer = f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        yield name, answer.replace(str(inputs), "INPUTS").replace(str(Path.cwd()), "HERE")
        for path in sorted(set(Path().rglob("*")) - known):
            known.add(path)
            if path.is_file() and path.suffix != ".png":
                yield f"{name} -> {path}", _content(path)


def _content(path: Path) -> str:
    """A text as it is; anything else as its digest."""
    content = path.read_bytes()
    try:
        return content.decode()
    except UnicodeDecodeError:
        return hashlib.sha256(content).hexdigest()


def main(inputs: Path, out: Path, parts: list[str]) -> None:
    made = {"resolved": resolved_scenarios, "wrong": wrong_scenarios, "traces": traces, "verbs": lambda: verbs(inputs)}
    answers: dict[str, str] = {}
    for part in parts:
        answers |= dict(made[part]())
    out.write_text(json.dumps(answers, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
