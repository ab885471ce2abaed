"""The benchmark of backends plans, counts and judges right; nothing here looks at a time that was measured."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.bench.backends import __main__ as bench
from tests.bench.backends import launch, samples, table, worker
from tests.bench.backends.samples import Report, Sample
from tests.bench.backends.verdicts import Verdict, verdicts
from tests.bench.backends.works import WORKS

MACHINE = {"CPU": "invented", "cores": "2"}


def sample(work: str, arm: str, milliseconds: float, ranks: int = 2, turn: int = 0, **more: Any) -> Sample:
    """A launch whose steps all took ``milliseconds``."""
    return Sample(work=work, ranks=ranks, arm=arm, round=turn, others=0.5, steps_ms=[milliseconds] * 5, **more)


def judged(*found: Sample) -> list[Verdict]:
    return list(verdicts(Report("2026-11-25", MACHINE, list(found))))


# What is run.


def test_arms_take_turns_and_each_round_begins_with_another():
    planned = list(bench.plan([WORKS["small"]], [2], 2, horovod=True))
    assert [(turn, arm) for _, _, turn, arm in planned] == [
        (0, "ours"), (0, "ours-1ms"), (0, "horovod-gloo"), (0, "horovod-mpi"),
        (1, "ours-1ms"), (1, "horovod-gloo"), (1, "horovod-mpi"), (1, "ours"),
    ]  # fmt: skip


def test_without_horovod_its_arms_are_not_planned():
    planned = list(bench.plan(list(WORKS.values()), [2, 4, 8], 1, horovod=False))
    assert {arm for *_, arm in planned} == {"ours", "ours-1ms", "gloo", "gloo-async", "ddp"}


def test_ranks_are_those_that_both_the_work_and_the_caller_have():
    planned = list(bench.plan([WORKS["thousand"], WORKS["one"]], [2, 4], 1, horovod=False))
    assert sorted({(work.name, ranks) for work, ranks, *_ in planned}) == [("one", 2), ("one", 4), ("thousand", 4)]


def test_the_works_are_those_of_the_targets():
    assert WORKS["small"].sizes == (64,) * 161
    assert sum(WORKS["resnet50"].sizes) == 25_557_032
    assert WORKS["resnet50"].sizes[:2] == (1000, 2_048_000)
    for work in WORKS.values():
        assert set(work.arms) <= set(launch.ARMS)
        assert {arm for target in work.targets for arm in target.against} <= set(work.arms)
        assert work.kind in worker.KINDS


def test_slow_arms_take_fewer_steps_and_a_quick_run_fewer_of_all():
    work = WORKS["thousand"]
    assert [work.spec(arm, quick=False)["steps"] for arm in ("ours", "gloo", "gloo-async")] == [50, 8, 8]
    assert work.spec("ours", quick=True)["steps"] == 8 > samples.SKIPPED_STEPS
    assert WORKS["idle"].spec("ours", quick=True)["seconds"] == 2


# How it is started.


@pytest.mark.parametrize(
    ("arm", "first", "has"),
    [
        ("ours", sys.executable, ["torch.distributed.run", "--standalone"]),
        ("ddp", sys.executable, ["torch.distributed.run"]),
        ("horovod-gloo", "/there/horovodrun", ["--gloo", "localhost:4", "/there/python"]),
        ("horovod-mpi", "mpirun", ["--oversubscribe", "/there/python"]),
    ],
)
def test_each_arm_has_its_launcher_and_all_run_the_same_file(arm, first, has):
    made = launch.command(launch.ARMS[arm], 4, Path("spec.json"), "/there/python")
    assert made[0] == first
    assert set(has) <= set(made)
    assert "4" in made
    assert made[-2:] == [str(launch.WORKER), "spec.json"]


def test_what_somebody_left_in_the_environment_is_not_passed_on(monkeypatch):
    monkeypatch.setenv("COORDSIM_CYCLE_TIME", "5ms")
    monkeypatch.setenv("HOROVOD_FUSION_THRESHOLD", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    for arm in launch.ARMS.values():
        made = launch.environment(arm)
        assert made["OMP_NUM_THREADS"] == "1"
        assert not {"COORDSIM_CYCLE_TIME", "HOROVOD_FUSION_THRESHOLD"} & set(made)
    mpi = launch.environment(launch.ARMS["horovod-mpi"])
    assert (mpi["HOROVOD_CONTROLLER"], mpi["HOROVOD_CPU_OPERATIONS"], mpi["HOROVOD_CYCLE_TIME"]) == ("MPI", "MPI", "1")
    assert launch.environment(launch.ARMS["horovod-gloo"])["HOROVOD_CONTROLLER"] == "GLOO"


def test_horovod_is_looked_for_where_the_environment_says(monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o755)
    monkeypatch.setenv("COORDSIM_HOROVOD_PYTHON", str(python))
    assert launch.horovod_python() == str(python)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    python.write_text("#!/bin/sh\nexit 1\n")
    assert launch.horovod_python() is None
    monkeypatch.setenv("COORDSIM_HOROVOD_PYTHON", str(tmp_path / "absent"))
    assert launch.horovod_python() is None


def test_a_launch_that_leaves_no_result_says_what_it_printed(monkeypatch):
    monkeypatch.setattr(launch, "command", lambda *_: [sys.executable, "-c", "print('no luck'); raise SystemExit(3)"])
    with pytest.raises(launch.LaunchFailed, match=r"(?s)ours with 2 ranks left no result.*no luck"):
        launch.launch(launch.ARMS["ours"], 2, {})
    monkeypatch.setattr(launch, "command", lambda *_: ["/not/there"])
    with pytest.raises(launch.LaunchFailed, match="No such file"):
        launch.launch(launch.ARMS["ours"], 2, {})


def test_a_launch_that_hangs_is_killed_with_its_children(monkeypatch, tmp_path):
    held = tmp_path / "held"
    os.mkfifo(held)
    script = f"sleep 600 > {held} & echo started; wait"
    reader = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setattr(launch, "command", lambda *_: ["sh", "-c", script])
    with pytest.raises(launch.LaunchFailed, match=r"killed after 0\.5 s"):
        launch.launch(launch.ARMS["ours"], 2, {}, timeout_s=0.5)
    assert os.read(reader, 1) == b""  # nobody has the other end open any more
    os.close(reader)


# What a rank does.


class Alone(worker.Arm):
    """One rank, with an allreduce that is wrong by ``off``."""

    def __init__(self, off: float = 0.0) -> None:
        self.rank, self.ranks, self.off = 0, 1, off

    def step(self) -> float:
        for tensor in self.tensors:
            tensor += self.off
        return 0.0


def test_steps_are_timed_on_one_clock_and_results_are_looked_at():
    found = worker.timed_steps(Alone(), [3, 4], 5)
    assert len(found["start"]) == len(found["submitted"]) == len(found["end"]) == 5
    assert found["end"] == sorted(found["end"])
    with pytest.raises(AssertionError, match="tensor 0 has a wrong value"):
        worker.timed_steps(Alone(0.1), [3, 4], 5)


def test_the_free_backward_gives_every_parameter_its_gradient_uncopied():
    tensors = [torch.full((size,), float(size)) for size in (1, 2, 3)]
    model = worker.Model(tensors)
    model().backward()
    assert [parameter.grad.tolist() for parameter in model.all] == [[3.0] * 3, [2.0] * 2, [1.0]]
    assert [parameter.grad.data_ptr() for parameter in reversed(model.all)] == [each.data_ptr() for each in tensors]


@pytest.mark.parametrize("arm", ["ours", pytest.param("ddp", marks=pytest.mark.long)])
def test_two_real_ranks(arm):
    spec = {**WORKS["small"].spec(arm, quick=True), "sizes": [3, 5]}
    results = launch.launch(launch.ARMS[arm], 2, spec)
    assert [each["rank"] for each in results] == [0, 1]
    found = samples.numbers("steps", results)
    assert len(found["steps_ms"]) == spec["steps"] - samples.SKIPPED_STEPS
    assert found.get("slow_after_first") == (0 if arm == "ours" else None)


# What is made of it.


def rank(*ends: float, **more: Any) -> dict[str, Any]:
    begins = [end - 0.5 for end in ends]
    return {"start": begins, "submitted": [begin + 0.25 for begin in begins], "end": list(ends), "cpu_s": 0.006,
            "counters": [{}, {}], **more}  # fmt: skip


def test_a_step_lasts_from_last_end_to_last_end_and_the_first_three_are_skipped():
    ranks = [rank(1.0, 2.0, 3.0, 4.0, 5.5, 6.0), rank(1.1, 2.0, 3.0, 4.5, 5.0, 6.5)]
    assert samples.step_times_ms(ranks) == pytest.approx([1500.0, 1000.0, 1000.0])
    assert samples.numbers("steps", ranks) == {
        "steps_ms": pytest.approx([1500.0, 1000.0, 1000.0]), "cpu_ms": 1.0, "submit_ms": 250.0
    }  # fmt: skip


def test_slow_cycles_after_the_first_step_are_counted_over_all_ranks():
    ends = [1.0, 2.0, 3.0, 4.0]
    ranks = [
        rank(*ends, counters=[{"slow_cycles": 4}, {"slow_cycles": 4}]),
        rank(*ends, counters=[{"slow_cycles": 4}, {"slow_cycles": 6}]),
    ]
    assert samples.numbers("steps", ranks)["slow_after_first"] == 2


def test_idle_is_the_busiest_rank():
    assert samples.numbers("idle", [{"idle_share": 0.001}, {"idle_share": 0.02}]) == {"idle_share": 0.02}


def test_recorder_pairs_are_compared_whichever_came_first():
    def engine(recorded: bool, step: float) -> dict[str, Any]:
        return {"recorded": recorded, **rank(*[step * number for number in range(6)])}

    rounds = [engine(False, 1.0), engine(True, 1.1), engine(True, 1.2), engine(False, 1.0)]
    ranks = [{"rounds": rounds, "recorded_files": 4}] * 2
    assert samples.numbers("recorder", ranks) == {"recorder": pytest.approx([1.1, 1.2])}
    ranks[1] = {"rounds": rounds, "recorded_files": 0}
    assert samples.numbers("recorder", ranks) == {"error": "nothing was recorded"}


def test_the_summary_is_a_median_of_medians():
    found = [
        Sample(work="one", ranks=2, arm="ours", round=turn, steps_ms=steps, cpu_ms=turn)
        for turn, steps in enumerate(([1.0, 2.0, 9.0], [3.0, 3.0, 3.0], [0.0, 8.0, 10.0], []))
    ]
    steps = samples.summary(found)
    assert steps is not None
    assert (steps.median, steps.lowest, steps.highest, steps.launches, steps.cpu_ms) == (3.0, 2.0, 8.0, 3, 1)
    assert steps.p10 == pytest.approx(1.6)
    assert steps.p90 == pytest.approx(9.6 - 2.0)
    assert samples.summary([found[3]]) is None


@pytest.mark.parametrize(("mine", "said"), [(2.0, "reached"), (2.1, "MISSED")])
def test_a_target_is_reached_or_missed(mine, said):
    found = judged(
        sample("small", "ours", mine), sample("small", "horovod-gloo", 2.0), sample("small", "horovod-mpi", 99.0)
    )
    assert [(each.against, each.target, each.verdict) for each in found] == [
        ("horovod-gloo 2.00 ms", "<= 1", said), ("horovod-mpi 99.0 ms", "aim <= 1", "reached"),
    ]  # fmt: skip


def test_the_best_of_several_counts():
    times = {"ddp": 120.0, "horovod-gloo": 100.0, "horovod-mpi": 110.0}
    others = [sample("resnet50", arm, time) for arm, time in times.items()]
    assert [each.verdict for each in judged(sample("resnet50", "ours", 105.0), *others)] == ["reached"]
    (found,) = judged(sample("resnet50", "ours", 106.0), *others)
    assert (found.verdict, found.ratio, found.against) == ("MISSED", "1.06", "horovod-gloo 100 ms")


def test_five_times_less_than_gloo():
    assert judged(sample("thousand", "ours", 20.0, 4), sample("thousand", "gloo", 100.0, 4))[0].verdict == "reached"
    assert judged(sample("thousand", "ours", 21.0, 4), sample("thousand", "gloo", 100.0, 4))[0].verdict == "MISSED"


def test_without_what_it_is_compared_with_there_is_no_verdict():
    (found,) = judged(sample("resnet50", "ours", 1.0), sample("resnet50", "ddp", 120.0))
    assert (found.ratio, found.verdict) == ("0.01", "skipped: no horovod-gloo")
    broken = Sample(work="thousand", ranks=4, arm="gloo", round=0, error="it broke\nmore")
    assert judged(sample("thousand", "ours", 1.0, 4), broken)[0].verdict == "FAILED: gloo"
    ours = Sample(work="thousand", ranks=4, arm="ours", round=0, error="it broke")
    assert judged(ours, sample("thousand", "gloo", 1.0, 4))[0].verdict == "FAILED: ours"


@pytest.mark.parametrize(("share", "said"), [(0.009, "reached"), (0.01, "MISSED")])
def test_idle_is_below_one_percent(share, said):
    found = [
        Sample(work="idle", ranks=4, arm=arm, round=0, idle_share=value)
        for arm, value in (("ours", share), ("horovod-gloo", 0.3), ("horovod-mpi", 0.2))
    ]
    (row,) = judged(*found)
    assert (row.against, row.verdict) == ("horovod-mpi 20.00%", said)


@pytest.mark.parametrize(("ratios", "said"), [([1.0, 1.019, 9.0], "reached"), ([1.0, 1.02, 9.0], "MISSED")])
def test_the_recorder_costs_less_than_two_percent(ratios, said):
    sampled = Sample(work="recorder-small", ranks=2, arm="ours", round=0, recorder=ratios)
    assert judged(sampled)[0].verdict == said
    nothing = Sample(work="recorder-small", ranks=2, arm="ours", round=0, error="nothing was recorded")
    assert judged(nothing)[0].verdict == "skipped: records nothing"


@pytest.mark.parametrize(("later", "said"), [(0, "reached"), (1, "MISSED")])
def test_one_slow_exchange_after_the_first_step_is_a_miss(later, said):
    found = judged(
        sample("one", "ours", 1.0, slow_after_first=0), sample("one", "ours-1ms", 1.0, slow_after_first=later)
    )
    assert (found[-1].ours, found[-1].verdict) == (str(later), said)


# What is written.


def report() -> Report:
    return Report("2026-11-25", MACHINE, [
        sample("small", "ours", 1.5, slow_after_first=0), sample("small", "horovod-gloo", 3.0),
        Sample(work="small", ranks=2, arm="horovod-mpi", round=0, error="left no result:\nTraceback"),
    ])  # fmt: skip


def test_samples_are_read_as_they_were_written_and_give_the_same_page(tmp_path):
    path = tmp_path / "out.json"
    samples.write(report(), path)
    assert list(tmp_path.iterdir()) == [path]
    assert samples.read(path) == report()
    path.write_text(json.dumps({"schema": "other"}))
    with pytest.raises(ValueError, match="not of schema"):
        samples.read(path)


def test_the_tables_are_aligned_and_name_what_failed():
    page = table.markdown(report())
    for block in page.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(line) for line in lines}) <= 1
        assert all(len(line) <= 100 for line in lines)
    assert "| 161 x 256 B     |   2 | 1.50 ms | horovod-gloo 3.00 ms |  0.50 | <= 1     | reached             |" in page
    assert "- small, 2 ranks, horovod-mpi: Traceback" in page
    assert page.startswith(
        "2026-11-25; CPU invented; cores 2. Other processes had 50% of the cores (median of launches; 50% at most)."
    )


def test_a_page_has_its_block_replaced_and_nothing_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{table.BEGIN}\n\nold\n\n{table.END}\n\nafter\n")
    for _ in range(2):
        table.replace_block(page, "new\nlines\n")
        assert page.read_text() == f"before\n\n{table.BEGIN}\n\nnew\nlines\n\n{table.END}\n\nafter\n"
    assert list(tmp_path.iterdir()) == [page]
    page.write_text("no marks\n")
    with pytest.raises(ValueError, match=r"page\.md: no"):
        table.replace_block(page, "new")


def test_a_page_is_made_of_samples_without_measuring(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "launch", lambda *_: pytest.fail("measured"))
    path, page = tmp_path / "out.json", tmp_path / "page.md"
    samples.write(report(), path)
    page.write_text(f"{table.BEGIN}\n{table.END}\n")
    assert bench.main(["--read", str(path), "--markdown", str(page)]) == 1  # one launch failed
    assert capsys.readouterr().out in page.read_text()


def test_a_whole_run_with_launches_that_are_invented(tmp_path, capsys, monkeypatch):
    """Every work, arm and kind once through plan, samples, tables and the file."""
    asked: list[tuple[str, int, str]] = []

    def invented(arm: launch.Arm, ranks: int, spec: dict[str, Any], horovod: str | None) -> list[dict[str, Any]]:
        asked.append((arm.name, ranks, spec["kind"]))
        if (arm.name, spec["kind"]) == ("horovod-mpi", "steps"):
            raise launch.LaunchFailed("mpirun is not there")
        step = 0.001 if arm.name.startswith("ours") else 0.01
        one = rank(*[step * number for number in range(spec["steps"])])
        rounds = [{"recorded": recorded, **one} for recorded in (False, True)]
        return [{**one, "idle_share": step, "rounds": rounds, "recorded_files": 1}] * ranks

    monkeypatch.setattr(bench, "launch", invented)
    monkeypatch.setattr(bench, "horovod_python", lambda: sys.executable)
    monkeypatch.setattr(bench, "machine", lambda _: MACHINE)
    out = tmp_path / "out.json"
    assert bench.main(["--quick", "--ranks", "2,4", "--out", str(out)]) == 1
    planned = list(bench.plan(list(WORKS.values()), [2, 4], 1, horovod=True))
    assert asked == [(arm, ranks, work.kind) for work, ranks, _, arm in planned]
    shown = capsys.readouterr().out
    assert shown == table.markdown(samples.read(out))
    assert "FAILED: horovod-mpi" in shown
    assert "| idle " in shown
    assert "|   4 | ours         |           0.10% | 0.10% to 0.10% |" in shown
    assert {each.verdict for each in verdicts(samples.read(out))} == {"reached", "FAILED: horovod-mpi"}


def test_what_others_took_is_what_was_busy_and_not_ours(monkeypatch):
    """Ten busy seconds, of which four were ours, of four cores for five seconds."""
    busy, own, now = iter([100.0, 110.0]), iter([7.0, 11.0]), iter([50.0, 55.0])
    monkeypatch.setattr(bench, "busy_s", lambda: next(busy))
    monkeypatch.setattr(bench, "_own_s", lambda: next(own))
    monkeypatch.setattr(bench.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(bench.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(bench, "launch", lambda *_: [{"idle_share": 0.001}])
    assert bench.measure(WORKS["idle"], 4, 0, "ours", True, None).others == 0.3
