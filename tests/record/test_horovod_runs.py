"""Recorded runs of real Horovod: read whole, or refused with what is wrong and where."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from coordsim.errors import InputError
from coordsim.record.horovod_runs import read_folder, read_launch
from tests.data import HOROVOD_RUNS

RANK = {"t_start": [0.0, 0.002], "t_submitted": [0.0005, 0.0024], "t_end": [0.0019, 0.004]}
LAUNCH = {
    "case": "made", "controller": "mpi", "n": 2, "env": {"HOROVOD_CYCLE_TIME": "2.5"}, "machine": "2 vCPU, made up",
    "workloads": {"seq": {"spec": {"tensors": 3, "numel": 8}, "ranks": [
        {**RANK, "submit_detail": {"1": [0.0001, 0.0002, 0.0004]}}, {**RANK, "t_end": [0.0018, 0.0039]},
    ]}},
}  # fmt: skip


def written(tmp_path, change=lambda launch: None, text=None):
    launch = copy.deepcopy(LAUNCH)
    change(launch)
    path = tmp_path / "mpi_n2_made.json"
    path.write_text(json.dumps(launch) if text is None else text)
    return path


def test_a_launch(tmp_path):
    launch = read_launch(written(tmp_path))
    assert (launch.controller, launch.ranks, launch.cycle_ns, launch.cores) == ("mpi", 2, 2_500_000, 2)
    assert (launch.cache_capacity, launch.threshold_bytes, launch.timeline) == (1024, 128 << 20, False)
    (workload,) = launch.workloads
    assert workload.start_ns.tolist() == [[0, 2_000_000]] * 2
    assert workload.submit_share[0].tolist() == pytest.approx([0.25, 0.5, 1.0])
    assert list(workload.submit_share) == [0]
    assert workload.gradient_bytes == 3 * 8 * 4
    assert workload.step_ms(1).tolist() == [2.1]
    assert workload.tail_ms(0).tolist() == pytest.approx([1.4, 1.6])


def test_the_recordings_summaries_are_ours():
    """Step times and tails by this reader equal what the recorder itself wrote down."""
    for launch in read_folder(HOROVOD_RUNS).launches:
        summaries = json.loads(launch.file.read_text())["workloads"]
        for workload in launch.workloads:
            summary = summaries[workload.name]["summary"]
            skip = summary["skipped"]
            assert np.median(workload.step_ms(skip)) == pytest.approx(summary["median_ms"], abs=2e-3)
            assert np.median(workload.tail_ms(skip)) == pytest.approx(summary["median_tail_ms"], abs=2e-3)


def test_primitives_and_sleeps():
    runs = read_folder(HOROVOD_RUNS)
    assert runs.sleep.asked_ns.tolist() == [50_000, 100_000, 1_000_000]
    assert {each.controller for each in runs.primitives} == {"mpi", "gloo"}
    assert {each.ranks for each in runs.primitives} == {2, 4}
    assert "coordinator_cpu_gloo.json" in runs.others


def drop_rank(launch):
    launch["workloads"]["seq"]["ranks"].pop()


def shorten(launch):
    launch["workloads"]["seq"]["ranks"][1]["t_end"].pop()


def backwards(launch):
    launch["workloads"]["seq"]["ranks"][0]["t_end"][1] = 0.0001


def no_number(launch):
    launch["workloads"]["seq"]["ranks"][0]["t_start"][1] = "soon"


def not_finite(launch):
    launch["workloads"]["seq"]["ranks"][0]["t_start"][0] = float("nan")


def misspell(launch):
    launch["controler"] = launch.pop("controller")


def wrong_detail(launch):
    launch["workloads"]["seq"]["ranks"][0]["submit_detail"]["1"].pop()


def bad_cycle(launch):
    launch["env"]["HOROVOD_CYCLE_TIME"] = "fast"


def missing_times(launch):
    del launch["workloads"]["seq"]["ranks"][1]["t_submitted"]


@pytest.mark.parametrize(("change", "words"), [
    (drop_rank, ["workloads.seq.ranks", "has 1 ranks where the launch has 2", "a rank is missing"]),
    (shorten, ["ranks[1].t_end", "has 1 steps where 2 are expected"]),
    (backwards, ["ranks[0]", "step 1", "t_end is before t_submitted"]),
    (no_number, ["ranks[0].t_start[1]", "'soon' is not a time in seconds"]),
    (not_finite, ["ranks[0].t_start[0]", "is not a time in seconds"]),
    (misspell, ["controller: is missing", "did you mean 'controler'"]),
    (wrong_detail, ["submit_detail", "has 2 submissions a step where the spec says 3"]),
    (bad_cycle, ["env.HOROVOD_CYCLE_TIME", "'fast' is not a number"]),
    (missing_times, ["ranks[1].t_submitted", "is missing"]),
])  # fmt: skip
def test_what_is_wrong_and_where(tmp_path, change, words):
    path = written(tmp_path, change)
    with pytest.raises(InputError) as caught:
        read_folder(tmp_path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(("text", "words"), [
    (json.dumps(LAUNCH)[:-40], ["is not complete JSON", "cut short?"]),
    ("", ["is not complete JSON"]),
    ("[" * 100_000, ["nested too deeply"]),
])  # fmt: skip
def test_files_that_are_no_json(tmp_path, text, words):
    path = written(tmp_path, text=text)
    with pytest.raises(InputError) as caught:
        read_folder(tmp_path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_folders_without_launches(tmp_path):
    with pytest.raises(InputError, match="holds no recorded launch"):
        read_folder(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        read_folder(tmp_path / "nowhere")
