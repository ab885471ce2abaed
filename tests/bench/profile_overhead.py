"""What `coordsim profile`'s hooks cost: CPU time of a step with and without them, in turns, and their ratio.

    python -m tests.bench.profile_overhead

Forty layers under DDP over gloo on two ranks: many gradients and little work, so that hooks show.
Each launch is a fresh job; the figure is the median over launches of each launch's mean step.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from real_backend.profile.launch import environment

STEPS, SKIP = 310, 10
SCRIPT = f"""
import os, time, torch, torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("gloo")
torch.manual_seed(0)
width = int(os.environ["WIDTH"])
model = nn.Sequential(*(nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(40)))
model = DistributedDataParallel(model, bucket_cap_mb=width * width * 4 * 10 / 2**20)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for step in range({STEPS}):
    if step == {SKIP}:
        dist.barrier()
        cpu, wall = time.process_time(), time.perf_counter()
    optimizer.zero_grad()
    model(torch.randn(32, width)).square().mean().backward()
    optimizer.step()
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
if dist.get_rank() == 0:
    print("took", cpu / {STEPS - SKIP}, wall / {STEPS - SKIP}, flush=True)
dist.destroy_process_group()
time.sleep(0.3)
"""


def launch(script: Path, width: int, record: int) -> tuple[float, float]:
    """CPU and wall clock of a step on rank 0, s. ``record``: steps that are recorded; 0: no hooks."""
    with tempfile.TemporaryDirectory() as folder:
        surroundings = environment(Path(folder), record) if record else dict(os.environ)
        surroundings |= {"OMP_NUM_THREADS": "1", "WIDTH": str(width)}
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)],
            env=surroundings, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    words = next(line for line in done.stdout.splitlines() if line.startswith("took")).split()
    return float(words[1]), float(words[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--launches", type=int, default=3)
    parser.add_argument("--widths", default="32,256", help="of the layers: 80 gradients, 8 buckets a step")
    options = parser.parse_args()
    arms = {"no hooks": 0, "recording": STEPS + 1, "recorded before": 5}
    print(f"{'width':>5}  {'arm':16}  {'CPU of a step':>13}  {'ratio':>6}  {'wall':>9}")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "train.py"
        script.write_text(SCRIPT, encoding="utf-8")
        for width in map(int, options.widths.split(",")):
            found: dict[str, list[tuple[float, float]]] = {arm: [] for arm in arms}
            for _ in range(options.launches):
                for arm, record in arms.items():
                    found[arm].append(launch(script, width, record))
            without = median(cpu for cpu, _ in found["no hooks"])
            for arm, each in found.items():
                cpu, wall = median(cpu for cpu, _ in each), median(wall for _, wall in each)
                print(f"{width:5}  {arm:16}  {cpu * 1e3:10.3f} ms  {cpu / without:6.3f}  {wall * 1e3:6.2f} ms")


if __name__ == "__main__":
    main()
