"""How an arm's ranks are started: torchrun, horovodrun or mpirun, one launch at a time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("worker.py")
ROOT = WORKER.parents[3]
TIMEOUT_S = 180.0


@dataclass(frozen=True)
class Arm:
    """One way to do a work."""

    name: str
    library: str
    """Key of the worker's ``ARMS``."""
    launcher: str = "torchrun"
    """``torchrun``, ``horovodrun`` or ``mpirun``."""
    settings: Mapping[str, Any] = field(default_factory=dict)


ARMS = {
    arm.name: arm
    for arm in (
        Arm("ours", "ours"),
        Arm("ours-1ms", "ours", settings={"cycle_time_ns": 1_000_000}),
        Arm("gloo", "gloo"),
        Arm("gloo-async", "gloo", settings={"together": True}),
        Arm("ddp", "ddp"),
        Arm("horovod-gloo", "horovod", "horovodrun"),
        Arm("horovod-mpi", "horovod", "mpirun"),
    )
}


class LaunchFailed(RuntimeError):
    """A launch ended without a result of every rank; the text ends with what it printed."""


def horovod_python() -> str | None:
    """A Python that has Horovod: that of ``COORDSIM_HOROVOD_PYTHON``, or this one; None when there is none."""
    for python in (os.environ.get("COORDSIM_HOROVOD_PYTHON"), sys.executable):
        if not python or shutil.which(python) is None:
            continue
        if subprocess.run([python, "-c", "import horovod.torch"], capture_output=True).returncode == 0:
            return python
    return None


def command(arm: Arm, ranks: int, spec: Path, horovod: str | None) -> list[str]:
    """What starts ``ranks`` workers on this machine."""
    if arm.launcher == "torchrun":
        return [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks),
            str(WORKER), str(spec),
        ]  # fmt: skip
    assert horovod is not None, "no Python with Horovod"
    worker = [horovod, str(WORKER), str(spec)]
    if arm.launcher == "horovodrun":
        starter = str(Path(horovod).with_name("horovodrun"))
        return [starter, "--gloo", "-np", str(ranks), "-H", f"localhost:{ranks}", *worker]
    return [
        "mpirun", "--allow-run-as-root", "--oversubscribe", "-np", str(ranks), "--bind-to", "none", "--map-by", "slot",
        "-mca", "pml", "ob1", "-mca", "btl", "^openib", *worker,
    ]  # fmt: skip


def environment(arm: Arm) -> dict[str, str]:
    """This process's, without settings of coordsim's or Horovod's that somebody left there, and one thread a rank."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COORDSIM_", "HOROVOD_", "OMPI_", "PMIX_"))
    }
    kept |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if arm.library == "horovod":
        data = "MPI" if arm.launcher == "mpirun" else "GLOO"
        kept |= {
            "HOROVOD_CONTROLLER": data, "HOROVOD_CPU_OPERATIONS": data, "HOROVOD_CYCLE_TIME": "1",
            "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        }  # fmt: skip
        kept.pop("PYTHONPATH")
    return kept


def launch(
    arm: Arm, ranks: int, spec: Mapping[str, Any], horovod: str | None = None, timeout_s: float = TIMEOUT_S
) -> list[dict[str, Any]]:
    """Every rank's result, in rank order. Raises LaunchFailed."""
    folder = Path(tempfile.mkdtemp(prefix="coordsim-bench-"))
    try:
        path = folder / "spec.json"
        whole = {**spec, "library": arm.library, "settings": dict(arm.settings), "folder": str(folder)}
        path.write_text(json.dumps(whole), encoding="utf-8")
        output = _run(command(arm, ranks, path, horovod), environment(arm), timeout_s)
        files = [folder / f"rank{rank}.json" for rank in range(ranks)]
        if not all(file.exists() for file in files):
            raise LaunchFailed(f"{arm.name} with {ranks} ranks left no result:\n{output[-3000:]}")
        return [json.loads(file.read_text(encoding="utf-8")) for file in files]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def busy_s() -> float | None:
    """CPU time that all cores together have spent; None where the kernel does not say."""
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0]
    except OSError:
        return None
    user, nice, system, _idle, _wait, interrupts, soft = (int(field) for field in line.split()[1:8])
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")


def _run(command: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> str:
    """What the command printed; after ``timeout_s`` its whole process group is killed."""
    try:
        process = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return str(error)
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        output += f"\nkilled after {timeout_s:g} s"
    return output
