"""`coordsim profile` around real processes: what it records of scripts that stay as they are."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from coordsim.analyse.calibrate.runs import read_runs
from coordsim.protocol.messages import Op
from coordsim.record.breakdown import CONTROL_PARTS, breakdown, step_times
from coordsim.record.ranks.reader import SpanKind
from coordsim.record.store import read_run
from coordsim.report.export import export_run
from tests.real_backend import warm
from tests.real_backend.profile_jobs import (
    DDP,
    FSDP,
    FSDP1,
    LOOP,
    OPTIMIZER,
    SPAWNED,
    WEIGHTS,
    Profiled,
    call,
    launched,
    profiled,
    script,
)

NAMES = {f"{layer}.0.{kind}" for layer in range(4) for kind in ("weight", "bias")}


def parts_sum(found: Profiled) -> None:
    trace, _ = found.stored
    parts = breakdown(trace)
    assert (sum(parts.values()) == step_times(trace)).all()
    assert all((column >= 0).all() for column in parts.values())


def ready_names(found: Profiled) -> list[set[str]]:
    """By rank: what was stamped in its last step."""
    return [{record.name(each) for each in record.ready[-1].tensors} for record in found.ranks]


STARTS = [pytest.param(False, id="warm"), pytest.param(True, id="torchrun", marks=pytest.mark.long)]


@pytest.fixture(scope="module")
def ddp(tmp_path_factory: pytest.TempPathFactory) -> Profiled:
    """Rank 1 is 150 ms late in every backward pass: more than a busy machine makes of equal ranks."""
    return profiled(tmp_path_factory.mktemp("ddp"), script(DDP, LOOP, steps=10, late=0.15), cold=True)


def test_ddp_over_gloo_tensor_by_tensor_on_every_rank(ddp: Profiled) -> None:
    assert ddp.done.returncode == 0, ddp.done.stderr
    parts_sum(ddp)
    assert ready_names(ddp) == [NAMES, NAMES]
    trace, facts = ddp.stored
    assert facts["control_plane"] == "ddp"
    assert set(trace.missing) == {"input_stall"}  # the script has no DataLoader
    assert not trace.cycles["cycle"].size
    parts = breakdown(trace)
    assert all(not parts[each].any() for each in CONTROL_PARTS)
    assert parts["exposed_collective"].any()
    assert trace.steps["step"].size == 10
    for record in ddp.ranks:
        assert [step.step for step in record.steps] == list(range(10))
        assert record.end is not None
        for step in record.steps[2:]:
            buckets = [each for each in record.responses if each.step == step.step]
            assert len(buckets) >= 2
            assert sum(each.nbytes for each in buckets) == 4 * (32 * 32 + 32) * 4
            assert sorted(name for each in buckets for name in map(record.name, each.tensors)) == sorted(NAMES)
            assert all(each.launch_ns <= each.copied_in_ns <= each.end_ns for each in buckets)
            assert all(step.forward_end_ns <= stamp for stamp in record.ready[step.step].stamps_ns)


def test_what_it_keeps_is_calibrated_exported_and_predicted(ddp: Profiled, tmp_path: Path) -> None:
    """From the ranks' records inside the run directory, under the control plane that was recorded."""
    measurement = read_runs([ddp.run])
    assert sorted(each.rank for each in measurement.of("step", crowded=True)) == [0, 1]
    assert any(measurement.of("allreduce", crowded=True))
    done = export_run(ddp.run, "chrome", tmp_path / "out.json", None, 100_000)
    assert "work and wait" in done.path.read_text()
    asked = [sys.executable, "-m", "coordsim", "predict", str(ddp.run), "--ranks", "12", "--steps", "2", "--json"]
    said = call(asked, tmp_path)
    assert json.loads(said.stdout)["control_plane"] == "ddp"


def test_the_late_rank_is_named_and_what_its_lateness_costs(ddp: Profiled) -> None:
    lines = ddp.done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 48
    assert "rank 1 on" in ddp.done.stdout
    _, facts = ddp.stored
    assert set(facts["last_tensors"]) <= {"0", "1"}
    advice = facts["recommendation"]
    assert "bring rank 1" in advice["change"]
    assert advice["saves_low"] <= advice["saves"] <= advice["saves_high"]
    assert advice["saves_low"] > 0
    assert ddp.done.stderr.splitlines()[-1].startswith("next: coordsim predict")


def test_the_manifest_says_what_was_run(ddp: Profiled) -> None:
    _, facts = ddp.stored
    assert facts["command"][-1].endswith("train.py")
    assert facts["exit_code"] == 0
    assert facts["versions"]["torch"]
    assert set(facts["records_sha256"]) == {"rank-00000.rank", "rank-00001.rank"}
    assert facts["clocks"]["1"]["error_ns"] > 0
    assert facts["settings"]["backend"] == "gloo"


def test_only_so_many_steps_are_recorded_and_training_goes_on(tmp_path: Path) -> None:
    text = script(DDP, LOOP, "\nif rank == 0: print('took', step + 1, len(model._forward_pre_hooks))", steps=12)
    found = profiled(tmp_path, text, "--steps", "3", "--json")
    assert found.done.returncode == 0, found.done.stderr
    summary = json.loads(found.done.stdout)
    assert (summary["steps"], summary["first_step"]) == (3, 1)
    assert "took 12 0" in found.done.stderr
    assert [len(record.steps) for record in found.ranks] == [4, 4]


HOOKED = """
def own(state, bucket):
    group = dist.group.WORLD
    buffer = bucket.buffer().div_(3)
    return dist.all_reduce(buffer, async_op=True).get_future().then(lambda done: done.value()[0])
model.register_comm_hook(None, own)
"""


def test_ddp_with_a_hook_of_its_own(tmp_path: Path) -> None:
    text = script(DDP, HOOKED, LOOP, WEIGHTS)
    alone = call(launched(tmp_path, text), tmp_path)
    found = profiled(tmp_path, text)
    assert found.done.returncode == 0, found.done.stderr
    assert weights(found.done.stdout) == weights(alone.stdout)
    parts_sum(found)
    assert ready_names(found) == [NAMES, NAMES]
    assert all(record.responses for record in found.ranks)


@pytest.mark.parametrize("cold", STARTS)
def test_fsdp2(tmp_path: Path, cold: bool) -> None:
    sleepy = LOOP.replace("    optimizer.zero_grad()\n", "    optimizer.zero_grad()\n    time.sleep(0.02 * rank)\n")
    text = script(FSDP, sleepy, WEIGHTS)
    alone = call(launched(tmp_path, text), tmp_path)
    found = profiled(tmp_path, text, cold=cold)
    assert found.done.returncode == 0, found.done.stderr
    assert weights(found.done.stdout) == weights(alone.stdout)
    parts_sum(found)
    assert ready_names(found) == [NAMES, NAMES]
    for record in found.ranks:
        operations = [each.op for each in record.responses if each.step == 3]
        assert operations.count(Op.REDUCESCATTER) == 4
        assert operations.count(Op.ALLGATHER) >= 4
    _, facts = found.stored
    rank, times, wait_ns = facts["waited_for"][0]
    assert rank == 1
    assert times >= 5
    assert wait_ns > 10e6
    assert "waited for    rank 1" in found.done.stdout


@pytest.mark.parametrize("cold", STARTS)
def test_fsdp1(tmp_path: Path, cold: bool) -> None:
    text = script(FSDP1, LOOP, late=0.02)
    found = profiled(tmp_path, text, cold=cold)
    assert found.done.returncode == 0, found.done.stderr
    parts_sum(found)
    flat = {f"{layer}.0._flat_param" for layer in range(4)}
    assert ready_names(found) == [flat, flat]
    for record in found.ranks:
        responses = [each for each in record.responses if each.step == 3]
        assert [each.op for each in responses].count(Op.REDUCESCATTER) == 4
        assert {each.nbytes for each in responses} == {4 * (32 * 32 + 32)}
        assert all(each.end_ns > each.copied_in_ns > 0 for each in responses)
    _, facts = found.stored
    assert facts["waited_for"][0][0] == 1


def test_children_of_spawn_close_their_records(tmp_path: Path) -> None:
    found = profiled(tmp_path, "", command=[*launched(tmp_path, SPAWNED, 0), "2"])
    assert found.done.returncode == 0, found.done.stderr
    _, facts = found.stored
    assert (facts["ranks"], facts["ended_early"]) == (2, [])


def test_the_last_of_several_jobs_is_told(tmp_path: Path) -> None:
    text = script(DDP, LOOP, steps=4)
    both = " && ".join(shlex.join(launched(tmp_path, text, ranks)) for ranks in (2, 1))
    found = profiled(tmp_path, "", command=["sh", "-c", both])
    assert found.done.returncode == 0, found.done.stderr
    assert "the command started 2 jobs one after the other" in found.done.stderr
    assert found.stored[1]["ranks"] == 1


@pytest.mark.parametrize("cold", STARTS)
def test_backend_coord_under_ddp(tmp_path: Path, cold: bool) -> None:
    found = profiled(tmp_path, script(DDP, LOOP, backend="coord", late=0.02), cold=cold)
    assert found.done.returncode == 0, found.done.stderr
    parts_sum(found)
    assert ready_names(found) == [NAMES, NAMES]
    trace, facts = found.stored
    assert facts["control_plane"] == "cached"
    assert set(trace.missing) == {"input_stall"}
    assert trace.cycles["cycle"].size
    assert (trace.steps["ready_last_rank"][1:] == 1).all()


@pytest.mark.parametrize("cold", STARTS)
def test_distributed_optimizer(tmp_path: Path, cold: bool) -> None:
    found = profiled(tmp_path, script(OPTIMIZER, LOOP, late=0.02), cold=cold)
    assert found.done.returncode == 0, found.done.stderr
    parts_sum(found)
    trace, _ = found.stored
    assert set(trace.missing) == {"input_stall"}
    assert (trace.steps["ready_last_rank"][1:] == 1).all()
    assert "hits a step" in found.done.stdout
    for record in found.ranks:
        assert {record.name(each) for cycle in record.cycles for each in cycle.popped} >= {
            f"allreduce.{name}" for name in NAMES
        }


def weights(printed: str) -> str:
    line = next(each for each in printed.splitlines() if each.startswith("weights"))
    assert len(line) > 1000
    return line


@pytest.mark.parametrize(
    ("ranks", "options"), [(2, ""), (3, ""), (3, ", gradient_as_bucket_view=True")], ids=["2", "3", "3 in buckets"]
)
def test_gradients_are_the_same_to_the_bit(tmp_path: Path, ranks: int, options: str) -> None:
    kept = LOOP.replace("zero_grad()", "zero_grad(set_to_none=step % 3 == 0)")
    text = script(DDP.replace("bucket_cap_mb=0.01", "bucket_cap_mb=0.01" + options), kept, WEIGHTS, steps=12)
    alone = call(launched(tmp_path, text, ranks), tmp_path)
    found = profiled(tmp_path, text, "--steps", "3", ranks=ranks)  # the hook that reduces outlives the record
    assert found.done.returncode == 0, found.done.stderr
    assert weights(found.done.stdout) == weights(alone.stdout)
    assert all(record.responses for record in found.ranks)


def test_a_rank_that_dies_half_way_is_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    after = "step == 4 and rank == 1 and os.kill(os.getpid(), signal.SIGKILL)"
    found = profiled(tmp_path, script(DDP, LOOP, after=after))
    assert found.done.returncode == 1
    assert f"exit code 1; what was recorded until then is kept in {found.run}" in found.done.stderr
    parts_sum(found)
    trace, facts = found.stored
    assert trace.steps["step"].size == 5
    assert facts["exit_code"] == 1
    assert 1 in facts["ended_early"]
    assert "whose process died while it recorded: 1" in found.done.stdout.replace("0, 1", "1")
    first = next(line for line in found.done.stderr.splitlines() if line.startswith("error:"))
    # Before Linux 6.15 a parent that reaps a rank faster than we look takes its status with it.
    how = r"(was killed by SIGKILL|ended without saying how \(as a killed process does\))"
    assert re.match(f"error: rank 1 failed first: it {how} in step 5", first)
    assert found.ranks[1].ended is not None
    assert (found.ranks[1].ended.how, found.ranks[1].ended.signal) in [("signal", 9), ("unknown", None)]


def test_a_rank_that_ended_no_step_is_left_out(tmp_path: Path) -> None:
    after = "time.sleep(0.2)"
    dies = LOOP.replace("    optimizer.step()", "    rank == 1 and os.kill(os.getpid(), signal.SIGKILL)\n"
                        "    optimizer.step()")  # fmt: skip
    found = profiled(tmp_path, script(DDP, dies, after=after))
    assert found.done.returncode == 1
    _, facts = found.stored
    assert facts["ranks_without_steps"] == [1]
    assert "ended no step" in found.done.stdout


def test_nobody_ended_a_step(tmp_path: Path) -> None:
    found = profiled(tmp_path, script(DDP, "\nmodel(torch.ones(1, 32)).sum().backward()\nos._exit(7)"))
    assert found.done.returncode == 1
    assert "no rank ended a step" in found.done.stderr
    assert (found.run / "ranks" / "rank-00001.rank").exists()
    said = call([sys.executable, "-m", "coordsim", "report", str(found.run)], tmp_path)
    assert (said.returncode, said.stdout) == (2, "")
    assert "no rank of this run ended a step" in said.stderr


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("print('hello')", 1, "no process of this command made an optimizer of torch and called backward"),
        ("raise SystemExit(5)", 5, "the command ended with exit code 5 before anything was recorded"),
        (
            "import torch.distributed as dist\ndist.init_process_group('gloo', store=dist.HashStore(), rank=0, "
            "world_size=1)", 1, "no optimizer was made and no model under DDP or FSDP was called",
        ),
    ],
)  # fmt: skip
def test_nothing_to_record_is_said_with_a_hint(tmp_path: Path, text: str, code: int, message: str) -> None:
    found = profiled(tmp_path, text, ranks=0)
    assert found.done.returncode == code
    assert message in found.done.stderr
    assert found.done.stderr.splitlines()[-1].startswith("next: coordsim profile -- torchrun")
    assert not found.run.exists()
    assert not list(tmp_path.glob(".run*"))


def test_a_command_whose_processes_have_no_hooks_is_told_why(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("import time; time.sleep(2)")
    found = profiled(tmp_path, "", command=["env", "PYTHONPATH=elsewhere", sys.executable, "plain.py"])
    assert found.done.returncode == 1
    why = "PYTHONPATH was replaced before it was started: write export PYTHONPATH=elsewhere:$PYTHONPATH"
    assert why in found.done.stderr or "does something in it replace PYTHONPATH" in found.done.stderr


def test_another_sitecustomize_still_runs(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "sitecustomize.py").write_text("print('theirs, too')")
    (tmp_path / "plain.py").write_text("")
    found = profiled(tmp_path, "", command=[sys.executable, "plain.py"], PYTHONPATH=str(other))
    assert found.done.stdout.count("theirs, too") >= 1


FAULTY = """
import real_backend.profile.steps
def broken(*_):
    raise ZeroDivisionError("planted")
real_backend.profile.steps.StepRecorder.ready = broken
"""


def test_a_fault_of_ours_ends_the_record_and_not_the_training(tmp_path: Path) -> None:
    text = script(DDP, LOOP, WEIGHTS)
    alone = call(launched(tmp_path, text), tmp_path)
    found = profiled(tmp_path, script(FAULTY, DDP, LOOP, WEIGHTS))
    assert weights(found.done.stdout) == weights(alone.stdout)
    assert found.done.stderr.count("training goes on): ZeroDivisionError: planted") == 2


PARTS = """
from torch.utils.data import DataLoader
optimizer.register_step_pre_hook(lambda *_: time.sleep(0.03))
def collate(samples):
    time.sleep(0.04)
    return torch.stack(samples)
batches = iter(DataLoader(torch.randn(400, 32), batch_size=2, collate_fn=collate))
for step in range(STEPS):
    for place in range(2):
        with model.no_sync() if place == 0 else nullcontext():
            output = model(next(batches))
            time.sleep(0.02)
            Late.apply(output).square().mean().backward()
    time.sleep(0.05)
    optimizer.step()
    optimizer.zero_grad()
    if step == 3:
        torch.save(model.state_dict(), "checkpoint.pt") if rank == 0 else None
        with torch.no_grad():
            model(torch.zeros(1, 32))
"""
LATE_CLASS = LOOP[: LOOP.index("generator")] + "from contextlib import nullcontext\n"


def test_each_part_of_a_step_is_as_long_as_the_rank_itself_took(tmp_path: Path) -> None:
    """Sleeps of 2 x 40 ms of input, 2 x 20 of forward, 50 before the optimizer and 30 in it; two passes."""
    found = profiled(tmp_path, script(DDP, LATE_CLASS, PARTS))
    assert found.done.returncode == 0, found.done.stderr
    for record in found.ranks:
        assert record.head["kinds"] == {"optimizers": ["SGD"], "models": ["Sequential"]}
        assert record.head["local_ranks"] == 2
        for step in record.steps[1:]:
            of = {kind: [each for each in step.spans if each.kind == kind] for kind in SpanKind}
            took = {kind: sum(each.end_ns - each.begin_ns for each in spans) / 1e6 for kind, spans in of.items()}
            between = of[SpanKind.OPTIMIZER][0].begin_ns - of[SpanKind.BACKWARD][-1].end_ns
            assert [each.place for each in of[SpanKind.FORWARD]] == [0, 1]
            assert [each.place for each in of[SpanKind.BACKWARD]] == [0, 1]
            assert took[SpanKind.INPUT] >= 80
            assert took[SpanKind.FORWARD] >= 40
            assert took[SpanKind.OPTIMIZER] >= 30
            assert between >= 50e6
            assert step.step_kind == "optimizer 0"
            assert step.cpu is not None
            assert 0 < step.cpu.main_ns <= step.cpu.process_ns
            assert len(of[SpanKind.EVALUATION]) == (step.step == 4)
            assert len(of[SpanKind.CHECKPOINT]) == (step.step == 4 and record.rank == 0)


OWN_LOOP = """
dist.init_process_group("gloo")
rank = dist.get_rank()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(100000):
    model(torch.randn(8, 32)).square().mean().backward()
    for each in model.parameters():
        dist.all_reduce(each.grad)
    optimizer.step()
    optimizer.zero_grad()
"""


def test_own_collectives_are_profiled_as_far_as_they_go_and_then_the_command_is_stopped(tmp_path: Path) -> None:
    """It would train for hours; with ``--then-stop`` it is over once five steps are recorded, with exit code 0."""
    found = profiled(tmp_path, script(OWN_LOOP), "--steps", "5", "--then-stop")
    assert found.done.returncode == 0, found.done.stderr
    told = f"recorded 5 steps on 2 ranks; see them now: coordsim report {found.run}; the command is stopped now"
    assert told in found.done.stderr
    assert "failed first" not in found.done.stderr
    assert ready_names(found) == [NAMES, NAMES]
    parts_sum(found)
    _, facts = found.stored
    assert facts["settings"]["framework"] == "none"
    assert (facts["exit_code"], facts["stopped"]) == (0, "recorded")


ALONE = """
rank, optimizer = 0, torch.optim.LBFGS(model.parameters(), max_iter=3)
def closure():
    optimizer.zero_grad()
    loss = model(torch.ones(8, 32)).square().mean()
    loss.backward()
    return loss
for step in range(8):
    optimizer.step(closure)
"""


def test_a_single_process_and_its_closures(tmp_path: Path) -> None:
    text = script(ALONE, WEIGHTS)
    alone = call(launched(tmp_path, text, 0), tmp_path)
    found = profiled(tmp_path, text, ranks=0)
    assert found.done.returncode == 0, found.done.stderr
    assert weights(found.done.stdout) == weights(alone.stdout)
    (record,) = found.ranks
    assert {step.step_kind for step in record.steps} <= {"optimizer 0", "closures 2", "closures 3"}
    assert any(step.step_kind == "closures 3" for step in record.steps)


def test_a_terminal_that_closes_leaves_what_was_recorded(tmp_path: Path) -> None:
    """The command's process group gets SIGHUP, from one of its own ranks."""
    after = "step == 5 and rank == 1 and os.killpg(int(os.environ['GROUP']), signal.SIGHUP)"
    command = shlex.join(launched(tmp_path, script(DDP, LOOP, after=after)))
    starts = f"export GROUP=$$; exec {sys.executable} -m coordsim profile --out {tmp_path / 'run'} -- {command}"
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", warm.SERVER: warm.server()}
    said = subprocess.run(
        ["sh", "-c", starts], cwd=tmp_path, env=surroundings, capture_output=True, text=True, timeout=300, check=False,
        process_group=0,
    )  # fmt: skip
    assert "the terminal was closed (SIGHUP), which ended the training" in said.stderr
    trace, facts, _ = read_run(tmp_path / "run")
    assert trace.steps["step"].size >= 5
    assert facts.command.end.fate.startswith("the terminal was closed; the training ended with exit code")
