"""Delays injected into one real rank are found in what the ranks recorded, on two cores and more ranks than that."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

import real_backend as rb
from coordsim.analyse.stragglers import stragglers
from coordsim.record.findings import Stragglers
from coordsim.record.ranks import read_folder
from tests.real_backend.processes import run

TENSORS = 8


def train(count: int, who: int, late_ms: float, at: int, compute_ms: float) -> None:
    """``count`` steps of some compute and 8 tensors; rank ``who`` sleeps before its tensor ``at`` of each."""
    rb.init()
    for _ in range(count):
        time.sleep(compute_ms / 1000)
        handles = []
        for tensor in range(TENSORS):
            if rb.rank() == who and tensor == at:
                time.sleep(late_ms / 1000)
            handles.append(rb.allreduce_async(torch.ones(256), f"t{tensor}"))
        for handle in handles:
            handle.wait()
    rb.shutdown()


def found_in(folder: Path, ranks: int, *arguments: Any) -> Stragglers:
    run(ranks, train, *arguments, env={"COORDSIM_RECORD": str(folder)})
    return stragglers(read_folder(folder))


@pytest.mark.parametrize(("ranks", "who"), [(2, 0), (4, 1)])
def test_200_ms_on_one_rank(ranks: int, who: int, tmp_path: Path) -> None:
    found = found_in(tmp_path, ranks, 9, who, 200.0, 0, 5.0)
    assert [list(each.ranks) for each in found.late] == [[who]], found.verdict
    late = found.late[0]
    assert late.late_s == pytest.approx(0.2, rel=0.2)
    assert late.last_in == late.of_steps == 8
    assert late.costs_s == pytest.approx(0.2, rel=0.2)
    assert late.onset.origin == "first gradient"


@pytest.mark.parametrize("ranks", [2, 4])
def test_5_ms_within_20_steps(ranks: int, tmp_path: Path) -> None:
    """Named, or, where so many ranks share the cores that it may be that, said to be slower all the same."""
    found = found_in(tmp_path, ranks, 20, 1, 5.0, 0, 10.0)
    if found.shared_cores and not found.late:
        assert found.verdict.startswith("nobody for certain: rank 1 is "), found.verdict
        return
    assert [list(each.ranks) for each in found.late] == [[1]], found.verdict
    assert found.late[0].late_s == pytest.approx(0.005, abs=0.003)


def test_the_tensor_before_which_it_sleeps_is_named(tmp_path: Path) -> None:
    found = found_in(tmp_path, 2, 12, 1, 100.0, 5, 5.0)
    onset = found.late[0].onset
    assert (onset.origin, onset.tensor) == ("tensor", "allreduce.t5")
