"""Wrong scenarios: every key with values that it cannot have, and files that no scenario can be read from.

:func:`messages` says what loading each of them answers; some of the values turn out to be good ones.
``tests/golden/wrong_scenarios.txt`` keeps the answers (``python -m tests.scenario.wrong_scenarios`` writes it), and
``tests/bench/compare_commits.py`` compares those of two commits, so that no message gets worse unseen.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from coordsim.errors import InputError
from coordsim.scenario import load_scenario

GOLDEN = Path(__file__).parents[1] / "golden" / "wrong_scenarios.txt"
CSV = "name,shape,dtype,layer,registration,ready\na.bias,10,float32,a,1,1000000\na.weight,10x64,float32,a,0,2000000\n"
TOML = """ranks = 12
steps = 5
cluster = "summit"

[workload]
name = "small"
tensors = "small.csv"
forward = "3ms"
optimizer = "0.5ms"
batch = 32
"""

_QUANTITIES = {
    "time": (
        "workload.forward", "workload.optimizer", "workload.backward", "workload.fixed.V100-SXM2",
        "control_plane.cycle_time", "cluster.control.latency", "cluster.control.overhead",
        "cluster.control.local_latency", "cluster.control.in_network", "cluster.host.per_message",
        "cluster.host.per_request", "cluster.host.per_response", "cluster.host.local_response",
        "cluster.host.device_entry", "cluster.host.launch", "cluster.data.copy_launch", "noise.stall_length",
        "noise.detour_length",
    ),
    "size": (
        "workload.sample_bytes", "workload.dataset_bytes", "control_plane.fusion_threshold", "control_plane.bucket",
        "control_plane.first_bucket", "cluster.control.eager_limit", "cluster.machine.node_storage",
    ),
    "rate": (
        "cluster.control.bandwidth", "cluster.control.local_bandwidth", "cluster.control.root_nic",
        "cluster.data.bus_bandwidth", "cluster.data.nvlink_bandwidth", "cluster.data.network_bandwidth",
        "cluster.data.copy_bandwidth", "cluster.machine.node_read", "cluster.machine.node_write",
        "cluster.machine.parallel_read", "cluster.machine.node_injection", "cluster.machine.device_flops",
        "workload.flops_per_sample",
    ),
    "power": (
        "cluster.machine.gpu_power", "cluster.machine.gpu_wait_power", "cluster.machine.gpu_idle_power",
        "cluster.machine.host_power", "cluster.machine.nic_power",
    ),
    "share": (
        "workload.enqueue", "cluster.data.tree_bandwidth", "cluster.data.backward_slowdown",
        "cluster.data.hop_latency", "cluster.machine.pue", "noise.rank.sigma", "noise.node.sigma",
        "noise.step.sigma", "noise.step.correlation", "noise.common.sigma", "noise.common.correlation",
        "noise.tensor.sigma", "noise.stall_probability", "noise.detour_probability", "noise.screen",
    ),
    "count": (
        "ranks", "steps", "seed", "workload.batch", "workload.global_batch", "workload.dataset_samples",
        "workload.replicas", "control_plane.cache_capacity", "control_plane.radix", "cluster.default_ranks",
        "cluster.machine.ranks_per_node", "cluster.machine.max_nodes", "cluster.data.copy_batch",
    ),
    "choice": (
        "workload.order", "workload.dtype", "control_plane.name", "control_plane.wire", "control_plane.data_plane",
        "control_plane.wait_for_data", "control_plane.strict_groups", "control_plane.merge", "control_plane.groups",
        "cluster.control.gather", "cluster.control.broadcast", "cluster.control.and_reduce", "cluster.data.allreduce",
        "cluster.data.nccl", "cluster.machine.storage", "noise.rank.distribution", "noise.step.distribution",
    ),
    "text": (
        "workload.name", "workload.description", "workload.gpu", "workload.base", "cluster.name",
        "cluster.description", "cluster.base", "cluster.machine.gpu", "workload.sources.batch",
    ),
    "table": (
        "workload", "cluster", "control_plane", "noise", "noise.rank", "noise.step", "cluster.machine",
        "cluster.control", "cluster.host", "cluster.data", "cluster.ranges", "cluster.sources", "workload.sources",
        "workload.rates", "workload.rates.V100-SXM2", "workload.rate", "workload.fixed", "workload.tensors",
    ),
}  # fmt: skip
_VALUES = {
    "time": ("5", "-1ms", "1parsec", "9e30s", "true", "[1]"),
    "size": ("64", "-1B", "64Mib", "9e30PB", "1.5"),
    "rate": ("25", "-1GB/s", "25GB", "0", "nan"),
    "power": ("300", "-1W", "300V"),
    "share": ("-1%", "99999%", "half", "true", "1.2.3"),
    "count": ("-1", "1.5", "many", "99999999999999999999", "true"),
    "choice": ("nomral", "3", "[]"),
    "text": ("3", "[]", '""'),
    "table": ("3", '""', "[]", "false"),
}
_OVERRIDES = (
    "rankz=3", "noise.rnak.sigma=1%", "control_plane.cycletime=1ms", "cluster.host.per_requst=1us",
    "cluster.machine.gpu.name=x", "workload.growth=64", "workload.tensor=a.csv", "cluster.dta.nccl=1", "steps",
    "=5", "noise..sigma=1%", "", "include=a.toml", "workload.parameters.batch=3", "workload.generator=stemld",
    'control_plane.groups=[["a.bais"]]', "control_plane.groups=5", 'control_plane.groups=[["a.bias"],["a.bias"]]',
    "control_plane.name=static", "control_plane=cachd", "cluster=sumit", "workload=resnet5", "workload=no.csv",
    "cluster=no.toml", "workload.rate=0", "workload.global_batch=31", "noise.stall_probability=1%",
    "cluster.machine.gpu_wait_power=400W", "cluster.control.in_network=0", 'workload.rates={ "V100-SXM2" = {} }',
    'workload.rates={ "V100-SXM2" = { x = 1 } }', 'cluster.ranges.x={ name = "a" }', "seed=9223372036854775808",
)  # fmt: skip
_RANGE = 'name = "a"\nlabel = "a"\nlow = "{low}"\nhigh = "1us"\ncostly = "{costly}"\nsource = "us"\n'
_FILES = {
    "unknown keys at every level": TOML + "rank = 3\n[cluster.host]\nlanch = 3\n[nose]\n",
    "an include that is text": 'include = "a.toml"\n' + TOML,
    "an include that is not there": 'include = ["a.toml"]\n' + TOML,
    "an include of itself": 'include = ["job.toml"]\n' + TOML,
    "a section that is a list": TOML.replace('cluster = "summit"', "cluster = []"),
    "an incomplete cluster": TOML.replace('cluster = "summit"', '[cluster.control]\nlatency = "3us"'),
    "tensors without a size": TOML.replace('"small.csv"', '[{ name = "a", ready = "1ms" }]'),
    "tensors with two sizes": TOML.replace('"small.csv"', '[{ name = "a", shape = "3", numel = 3, ready = "1ms" }]'),
    "a tensor of no type": TOML.replace('"small.csv"', '[{ name = "a", shape = "3", dtype = "f32", ready = "1ms" }]'),
    "a tensor that is a number": TOML.replace('"small.csv"', "[3]"),
    "a tensor with an unknown key": TOML.replace('"small.csv"', '[{ nam = "a", shape = "3" }]'),
    "a shape of text": TOML.replace('"small.csv"', '[{ name = "a", shape = "3xx", ready = "1ms" }]'),
    "ready times that go back": TOML.replace(
        '"small.csv"', '[{ name = "a", shape = "3", ready = "2ms" }, { name = "b", shape = "3", ready = "1ms" }]'
    ),
    "a range of no number": TOML + '[cluster.ranges."host.requests"]\n' + _RANGE.format(low="1us", costly="high"),
    "a range of no noise": TOML + '[cluster.ranges."noise.rank"]\n' + _RANGE.format(low="1us", costly="high"),
    "an end that cannot be": TOML + '[cluster.ranges."host.per_request"]\n' + _RANGE.format(low="1", costly="high"),
    "a range that costs nothing": TOML + '[cluster.ranges."host.launch"]\n' + _RANGE.format(low="1us", costly="both"),
    "an empty file": "",
    "not TOML": "ranks = ",
    "a key twice": "ranks = 1\nranks = 2",
    "two mistakes and a default": TOML + '[control_plane]\nradix = 1\nwait_for_data = "host"\nbucket = "0B"\n',
}


def messages(folder: Path) -> Iterator[tuple[str, str]]:
    """(what is wrong, what loading it answers) of every wrong scenario; files are written to ``folder``."""
    (folder / "small.csv").write_text(CSV)
    with contextlib.chdir(folder):
        Path("job.toml").write_text(TOML)
        grid = (
            f"{key}={value}" for kind, keys in _QUANTITIES.items() for key in keys for value in _VALUES[kind]
        )
        for override in (*grid, *_OVERRIDES):
            yield f"--set {override}", _answer(overrides=[override])
        for name, text in _FILES.items():
            Path("job.toml").write_text(text)
            yield name, _answer()
        os.remove("job.toml")
        yield "no file", _answer()


def _answer(**changes: object) -> str:
    try:
        scenario = load_scenario("job.toml", **changes)  # type: ignore[arg-type]
    except InputError as error:
        return str(error)
    return f"loads: {scenario.workload.name} on {scenario.ranks} ranks"


def as_text(answers: Iterable[tuple[str, str]]) -> str:
    """One paragraph a scenario: what is wrong, and below it, indented, the answer."""
    return "".join("\n    ".join([wrong, *answer.splitlines()]) + "\n" for wrong, answer in answers)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        GOLDEN.write_text(as_text(messages(Path(scratch))), encoding="utf-8")
