"""Control alone at many ranks: the law that is fitted, what is predicted with it, and real jobs of a few ranks."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from coordsim.analyse.validate.scale import FITTED, PREDICTED, TENSORS, Job, judge, measure, read_job
from coordsim.errors import EnvironmentProblem, InputError
from coordsim.report.tables import Page
from coordsim.report.validation import scale_report


def job(plane: str, ranks: int, tensors: int, queued: int = 5) -> Job:
    """By the law: rank 0 takes 100 + 30 W + 20 (N - 1) + 3 K + 7 (N - 1) K us, others 50 + 2 K; steps 0.6 of the sum.

    Its wakes W are one a message up to 6, and no more.
    """
    wakes = min(ranks - 1, 6)
    root = 100 + 30 * wakes + 20 * (ranks - 1) + 3 * tensors + 7 * (ranks - 1) * tensors
    other = 50 + 2 * tensors
    cpu = root + (ranks - 1) * other
    return Job(plane, ranks, tensors, 2, root, other, 1.2 * cpu / 2, wakes, queued / 100 * cpu, cpu)


JOBS = [job(plane, n, k) for plane in ("coordinator", "cached") for n in (*FITTED, *PREDICTED) for k in TENSORS]


def test_a_law_that_holds_is_found_and_carried_on():
    found = judge(JOBS)
    assert found["missed"] == []
    assert max(abs(row["relative_error"]) for row in found["rows"]) < 1e-6
    assert {row["ranks"] for row in found["rows"] if not row["fitted"]} == set(PREDICTED)
    assert found["fitted_ranks"] == list(FITTED)
    json.dumps(found, allow_nan=False)


def test_what_was_predicted_has_no_part_in_the_fit():
    other = [replace(each, root_us=9 * each.root_us, wall_us=1.0) if each.ranks > 16 else each for each in JOBS]
    for one, two in zip(judge(JOBS)["rows"], judge(other)["rows"], strict=True):
        assert one["predicted_s"] == pytest.approx(two["predicted_s"])


def test_a_law_that_does_not_hold_is_a_miss():
    slower = [replace(each, root_us=1.3 * each.root_us) if each.ranks > 16 else each for each in JOBS]
    found = judge(slower)
    assert found["median_abs_relative_error"]["cpu"] == pytest.approx(1 - 1 / 1.3)
    assert [told.split(":")[0] for told in found["missed"]] == ["cpu"]
    page = scale_report(found, Page())
    assert max(map(len, page.splitlines())) <= 80
    assert "MISSED cpu: median absolute error 23.1%, promised 15%" in page
    assert "0.05 times as long as they used it: quiet" in page


def test_less_is_promised_where_ranks_waited_for_their_cores():
    """Of jobs whose ranks have a core each: others always wait."""
    slower = [replace(each, root_us=1.3 * each.root_us) if each.ranks > 16 else each for each in JOBS]
    busy = [replace(each, queued_us=each.cpu_us) if each.ranks == 2 else each for each in slower]
    crowded = [replace(each, queued_us=9 * each.cpu_us) if each.ranks > 2 else each for each in slower]
    assert judge(crowded)["busy"] is False
    found = judge(busy)
    assert (found["busy"], found["missed"]) == (True, [])
    assert found["tolerance"]["cpu"] > judge(slower)["tolerance"]["cpu"]
    assert "busy with other things" in " ".join(scale_report(found, Page()).split())


def test_too_few_jobs_are_refused():
    with pytest.raises(InputError, match="too few jobs"):
        judge([each for each in JOBS if each.ranks == 2])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"plane": "cached", "cpu_us": [1]}', '{"cpu_us": "x"}'])
def test_a_file_of_something_else_is_one_error(tmp_path, text):
    (tmp_path / "job.json").write_text(text)
    with pytest.raises(InputError, match="no job of validate scale"):
        read_job(tmp_path / "job.json")


def test_a_job_that_fails_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(EnvironmentProblem, match="a job of 2 ranks failed"):
        measure(tmp_path / "kept", quick=True)
    assert list((tmp_path / "kept").iterdir()) == []


@pytest.mark.parametrize("plane", ["coordinator", "cached"])
def test_a_real_job(tmp_path, plane):
    command = [sys.executable, "-m", "real_backend.launches.rounds", "3", "10", "6", plane]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    (tmp_path / "job.json").write_text(ended.stdout)
    found = read_job(tmp_path / "job.json")
    assert (found.plane, found.ranks, found.tensors) == (plane, 3, 10)
    assert 0 < found.other_us < 1e6
    assert found.wall_us > 0
    assert len(json.loads(ended.stdout)["step_us"]) == 6
    assert found.wakes > 0
    assert found.cpu_us > found.root_us
