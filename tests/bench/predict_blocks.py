"""Means over blocks of steps of a recorded run, predicted from its first half: ``python -m tests.bench.predict_blocks
FOLDER...`` (folders of ranks' records, COORDSIM_RECORD).

What is compared is when the last rank is ready in a step (the maximum over ranks of the time to its last submission).
The first half of the steps gives the noise, as ``coordsim predict`` takes it; many seeds of it give the 90 % interval
of a block's mean, around the first half's mean; counted are the second half's blocks inside. Once as fitted, once with
the two correlations at 0, and once without the noise of all ranks as well, as it was before either was modelled.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from coordsim.analyse.calibrate.runs import of_records
from coordsim.analyse.jitter import jitter
from coordsim.cost.noise import ONE_Q16, NoiseModel
from coordsim.record.ranks import read_folder
from coordsim.scenario.model import Noise, Spread

BLOCKS = (5, 10, 20, 50)
SEEDS = 200


def ppm(share: float) -> int:
    return round(min(share, 0.999) * 1e6)


def means(noise: Noise, ranks: int, block: int) -> np.ndarray:
    """Of one block for each seed, over its expected value."""
    found = []
    for seed in range(SEEDS):
        model = NoiseModel(noise, seed, ranks, ranks)
        found.append(np.mean([int(model.step_q16(step).max()) for step in range(block)]) / ONE_Q16)
    return np.array(found) / np.mean(found)


def run(folder: Path) -> None:
    times = np.array([each.samples_ns for each in of_records(read_folder(folder))]).T
    half = len(times) // 2
    first, second = times[:half] / np.median(times[:half]), times[half:].max(axis=1)
    found = jitter(first)
    goes_on = Noise(
        step=Spread("normal", ppm(found.step.value)), step_correlation_ppm=ppm(found.step_correlation.value),
        common=Spread("normal", ppm(found.common.value)), common_correlation_ppm=ppm(found.common_correlation.value),
    )  # fmt: skip
    anew = Noise(step=goes_on.step, common=goes_on.common)
    moved = second.mean() / times[:half].max(axis=1).mean()
    print(
        f"{folder.name}: {times.shape[1]} ranks, {len(times)} steps of {np.median(times) / 1e6:.1f} ms; step "
        f"{found.step.value:.3f} ({found.step_correlation.value:.2f}), common {found.common.value:.3f} "
        f"({found.common_correlation.value:.2f}); second half's mean {moved:.3f} of the first's"
    )
    for block in BLOCKS:
        blocks = second[: len(second) // block * block].reshape(-1, block).mean(axis=1)
        if len(blocks) < 3:
            continue
        for centre in (times[:half].max(axis=1).mean(), blocks.mean()):
            inside = []
            for noise in (goes_on, anew, Noise(step=goes_on.step)):
                low, high = np.quantile(means(noise, times.shape[1], block), (0.05, 0.95)) * centre
                inside.append(f"{np.mean((blocks >= low) & (blocks <= high)):.2f}")
            around = "second half's own mean" if centre == blocks.mean() else "first half's mean"
            print(f"  {len(blocks)} blocks of {block}, around the {around}: as fitted {inside[0]}, correlations 0 "
                  f"{inside[1]}, nothing common {inside[2]}", flush=True)


def main(folders: Sequence[str]) -> None:
    for folder in folders:
        run(Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
