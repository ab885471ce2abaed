"""SimGrid, when Debian's ``libsimgrid-dev`` is installed: build the replayer, run it on a GOAL schedule."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from coordsim.cost.goal import Goal
from coordsim.cost.network import LogGP

SOURCE = Path(__file__).with_name("simgrid_goal.cpp")
HEADER = "simgrid/s4u.hpp"
HOW_TO = "apt-get install libsimgrid-dev g++"


def why_not() -> str:
    """What is missing here, or ""."""
    compiler = shutil.which("g++")
    if compiler is None:
        return f"SimGrid was not asked: no g++ ({HOW_TO})"
    probe = [compiler, "-std=c++17", "-x", "c++", "-fsyntax-only", "-"]
    code = f"#if !__has_include({json.dumps(HEADER)})\n#error\n#endif\n"
    found = subprocess.run(probe, input=code, capture_output=True, text=True)
    return "" if found.returncode == 0 else f"SimGrid was not asked: no {HEADER} ({HOW_TO})"


def build(folder: Path) -> Path:
    """Compile the replayer into ``folder``. Raises CalledProcessError, with the compiler's words on stderr."""
    program = folder / "simgrid_goal"
    subprocess.run(["g++", "-O1", "-std=c++17", str(SOURCE), "-o", str(program), "-lsimgrid"], check=True)
    return program


def finish_ns(program: Path, goal: Goal, net: LogGP, folder: Path) -> list[float]:
    """When each rank has finished, in ns, by SimGrid; shape [rank]. Raises RuntimeError with what SimGrid said."""
    path = folder / "schedule.goal"
    path.write_text(goal.text(), encoding="utf-8")
    network = [net.latency_ns, net.overhead_ns, net.bandwidth_Bps]
    network += [net.local_latency_ns, net.local_bandwidth_Bps, net.ranks_per_node]
    ran = subprocess.run([str(program), str(path), *map(str, network)], capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"SimGrid exits with {ran.returncode}: {ran.stderr[-2000:]}")
    return [float(line) for line in ran.stdout.split()]
