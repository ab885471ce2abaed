"""What "validated" means: compared with real runs of that backend, at such ranks, cores and sizes; or not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordsim.analyse.predict.validated import Compared, validated

MIB = 1 << 20
ROW = Compared("gloo", "ddp", "sleeping", 2, 8, 2, MIB, 0.100, 0.110, 0.090, 0.120, "2026-11-29")
ROWS = (ROW, replace(ROW, ranks=3, nbytes=6 * MIB, predicted_s=0.095, high_s=0.098))


def test_a_case_among_those_compared_lies_inside():
    found = validated("gloo", "ddp", 4, 2, 2 * MIB, None, ROWS)
    assert found.inside
    assert found.says == (
        "validated for gloo, N to 8, 2 cores, 1 MiB to 6 MiB a step, on 2026-11-29: 2 runs, median error 7 %, "
        "worst 10 %; this case lies inside"
    )
    assert found.facts()["intervals_held"] == 0.5


@pytest.mark.parametrize(
    ("case", "told"),
    [
        (("gloo", "ddp", 16, 2, MIB, None), "16 ranks"), (("gloo", "ddp", 4, 64, MIB, None), "64 cores"),
        (("gloo", "ddp", 4, 2, 100 * MIB, None), "100 MiB a step"),
        (("gloo", "fsdp2", 4, 2, MIB, None), "fsdp2 over gloo"),
        (("gloo", "ddp", 4, None, MIB, "summit"), "another machine than the recorded one (summit)"),
        (("gloo", "ddp", 4, None, MIB, None), "cores are not known"),
    ],
)  # fmt: skip
def test_what_differs_from_all_of_them_is_said(case, told):
    found = validated(*case, ROWS)
    assert not found.inside
    assert found.says.startswith("not validated for ")
    assert told in found.says.partition(". Validated")[0]


def test_a_backend_that_was_never_compared_is_not_validated():
    found = validated("nccl", "ddp", 8, 2, MIB, None, ROWS)
    assert found.says == "not validated for nccl: no prediction of it was compared with a run"
    assert found.facts()["bytes"] is None
