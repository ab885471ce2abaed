"""How often ``coordsim predict``'s intervals hold the truth: ``python -m tests.bench.predict_coverage``.

The truth is a simulation whose noise is known, at 256 ranks; the record is of 4 ranks of the same machine, made with
other draws of the same noise. For every seed: record, predict, compare. Control costs next to nothing here (gradients
of a few KB, a control plane of one bit vector), so that what is tested is what comes from the record.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from coordsim.analyse.predict import measured_workload, predict
from coordsim.cost.noise import NoiseModel
from coordsim.scenario.model import Noise, Spread
from coordsim.simulate.engine import simulate
from tests.analyse.test_predict import records

RECORDED, STEPS = 4, 20
MACHINE = "summit"

NORMAL = Noise(rank=Spread("normal", 20_000), step=Spread("normal", 10_000))
GOES_ON = Noise(
    rank=Spread("normal", 20_000), step=Spread("normal", 20_000), step_correlation_ppm=700_000,
    common=Spread("normal", 15_000), common_correlation_ppm=800_000,
)  # fmt: skip
TAILED = Noise(rank=Spread("normal", 5_000), step=Spread("exponential", 20_000))
TRUTHS = {"normal, anew in each step": NORMAL, "goes on, and common": GOES_ON, "exponential steps": TAILED}


def recorded(noise: Noise, seed: int, steps: int) -> list:
    """4 ranks' records: backward's length by the noise."""
    model = NoiseModel(noise, seed, RECORDED, 6)
    return records(RECORDED, steps, factors=np.array([model.step_q16(step) for step in range(steps)]) / (1 << 16))


def coverage(noise: Noise, ranks: int, seeds: int, steps: int) -> dict[str, float]:
    """Share of seeds in which an interval held what it is about."""
    held: dict[str, list[bool]] = {}
    off = []
    for seed in range(seeds):
        measured = measured_workload(recorded(noise, 1000 + seed, steps))
        found = predict(
            measured, "made", "tests.bench", ranks=ranks, cluster=MACHINE, control_plane="cached", steps=STEPS
        )  # fmt: skip
        described = found.scenario
        described = replace(described, noise=noise, workload=exact(described.workload))
        runs = [simulate(replace(described, seed=5000 + 100 * seed + each)).step_time_s for each in range(12)]
        expected, one = float(np.mean(runs)), runs[0]
        off.append(found.step_s / expected - 1)
        three = np.array([found.run_noise, found.fitted, found.form])
        hull = three[:, 0].min(), three[:, 1].max()
        added = found.step_s + (three - found.step_s).sum(axis=0)
        for what, (low, high), truth in (
            ("run noise, one run", found.run_noise, one), ("fitted, expected step", found.fitted, expected),
            ("form, expected step", found.form, expected), ("the widest, one run", hull, one),
            ("all three added, one run", tuple(added), one),
        ):  # fmt: skip
            held.setdefault(what, []).append(low <= truth <= high)
    return {what: float(np.mean(each)) for what, each in held.items()} | {"off by (rms)": float(np.std(off))}


def exact(workload):
    """The workload as it was made: 20 ms forward, gradients at 1/3, 2/3 and all of 50 ms, 3 ms."""
    ready = [round(50e6 * share / 3) for share in (1, 2, 3)]
    tensors = tuple(
        replace(each, ready_ns=at, submit_ns=at) for each, at in zip(workload.tensors, ready, strict=True)
    )
    return replace(workload, tensors=tensors, forward_ns=20_000_000, optimizer_ns=3_000_000)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--truth", choices=TRUTHS, action="append", help="one of them (all)")
    parser.add_argument("--steps", type=int, default=100, help="recorded")
    asked = parser.parse_args()
    for name in asked.truth or TRUTHS:
        noise = TRUTHS[name]
        found = coverage(noise, asked.ranks, asked.seeds, asked.steps)
        print(name, {what: f"{value:.3f}" for what, value in found.items()}, flush=True)


if __name__ == "__main__":
    main()
