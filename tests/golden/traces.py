"""Golden traces: scenarios that do not depend on the catalog, and the digests of their traces.

``python -m tests.golden.traces`` writes ``traces.json`` anew from the vector engine. With ``--event`` it first runs
the event engine too wherever that takes minutes rather than days, and refuses to write when the two differ.
A changed digest needs a reason in the commit message: it means that the same scenario no longer gives the same
nanoseconds.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

from coordsim.record.breakdown import step_times
from coordsim.record.trace import Trace, difference
from coordsim.scenario.model import Noise, Scenario, Spread, Tensor, Workload
from coordsim.simulate import event, vector
from coordsim.simulate.problem import Problem
from tests.scenarios import CLUSTER, PLANE

FILE = Path(__file__).with_name("traces.json")
TENSORS = 161

EVENT_TOO = (
    "coordinator-4096", "cached-4096", "hierarchical-4096", "point-to-point-4096", "ideal-4096", "ddp-4096",
    "coordinator-27600",
)  # fmt: skip
"""Small enough for the event engine: checked when the file is written."""


def job() -> Workload:
    """161 tensors of uneven size and timing; 90 ms of compute, about 100 MB of gradients."""
    clock, made = 0, []
    for index in range(TENSORS):
        clock += 100_000 + 37_411 * (index * index % 17)
        size = 256 * (1 + index % 7) ** 4
        layer, place = f"block{index // 10}", TENSORS - 1 - index
        made.append(Tensor(f"{layer}.t{index}", (size, 4), "float32", layer, place, clock, clock))
    return Workload("golden", tuple(made), 30_000_000, 2_000_000, 64, 10**9, 0)


def scenarios() -> dict[str, Scenario]:
    noise = Noise(rank=Spread("normal", 15_000), step=Spread("normal", 5000), tensor=Spread("exponential", 20_000))
    made = {}
    for ranks in (4096, 27_600):
        for name in ("ideal", "ddp", "point-to-point", "coordinator", "hierarchical", "cached"):
            cycle_ns = 1_000_000 if name == "cached" else 5_000_000
            plane = replace(PLANE, name=name, cycle_time_ns=cycle_ns, radix=16)
            made[f"{name}-{ranks}"] = Scenario(job(), CLUSTER, plane, noise, ranks, 1, 20_221)
    return made


def facts(trace: Trace) -> dict[str, object]:
    return {
        "digest": trace.digest(),
        "step_ns": step_times(trace).tolist(),
        "cycles": int(trace.cycles["repeat"].sum()),
        "responses": int(trace.responses["cycle"].size),
    }


def main(with_event: bool) -> None:
    golden = {}
    for name, scenario in scenarios().items():
        trace = vector.run(Problem(scenario))
        if with_event and name in EVENT_TOO:
            began = time.process_time()
            unequal = difference(event.run(Problem(scenario)), trace)
            peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            cpu_s = time.process_time() - began
            print(f"{name}: event engine {cpu_s:.0f} CPU s, peak {peak_mb} MB: {unequal or 'equal'}", flush=True)
            if unequal:
                sys.exit(1)
        golden[name] = facts(trace)
    FILE.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main("--event" in sys.argv)
