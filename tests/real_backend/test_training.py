"""Training on made-up samples: that each task learns, whoever reduces the gradients, and the command."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from real_backend.train import main
from real_backend.training import TASKS, Draw, Images, Stemdl, Task, Training, Words
from real_backend.training.backends import Groups, Place, reducing
from real_backend.training.diffraction import FULL
from real_backend.training.words import END, IGNORED, MASK, START, WORDS_FROM
from tests.real_backend import processes

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small tensors: more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Tiny(Stemdl):
    """A scan of 16 x 16."""

    def __init__(self) -> None:
        super().__init__()
        self.microscope = replace(self.microscope, scan=(16, 16))


class TinyImages(Images):
    """Two classes of 32 x 32, to be told apart in few steps."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels, self.turns, self.periods = 32, 1, 2


def test_full_size_has_the_layout_of_stemdl() -> None:
    assert (FULL.channels, *FULL.scan) == (1024, 512, 512)
    with torch.device("meta"):
        model = Stemdl("full").model()
        outputs = model(torch.zeros(1, FULL.channels, *FULL.scan))
    assert outputs.shape == (1, 1, *FULL.scan)
    assert sum(parameter.numel() for parameter in model.parameters()) == 232_794_112


def same(first: Task, one: Draw, other: Draw) -> bool:
    a, b = (first.samples(draw, 2, CPU) for draw in (one, other))
    return torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)


@pytest.mark.parametrize("task", [Tiny(), TinyImages(), Words()], ids=lambda task: task.name)
def test_samples_follow_from_seed_rank_and_step(task: Task) -> None:
    draw = Draw(seed=1, rank=2, step=3)
    assert same(task, draw, Draw(1, 2, 3))
    for other in (Draw(0, 2, 3), Draw(1, 0, 3), Draw(1, 2, 4), Draw(1, 2, 3, held_out=True), Draw(1, 3, 2)):
        assert not same(task, draw, other)


@pytest.mark.parametrize(("task", "steps"), [(TinyImages(), 20), (Words(), 40)], ids=("resnet50", "bert"))
def test_loss_falls(task: Task, steps: int) -> None:
    training = Training(task, last=steps)
    losses = [step.loss for step in training.steps(steps)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_stemdl_beats_the_mean_on_crystals_that_it_has_not_seen() -> None:
    training = Training(Tiny(), last=50, batch=4)
    start = training.held_out_error()
    losses = [step.loss for step in training.steps(50)]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert training.held_out_error() < 0.8 * training.trivial_error() < start


def test_the_same_run_twice_and_another_rank() -> None:
    def losses(rank: int) -> list[float]:
        return [step.loss for step in Training(TinyImages(), rank=rank, batch=4).steps(2)]

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)
    weights = [Training(TinyImages(), rank=rank).model.state_dict()["conv1.weight"] for rank in (0, 1)]
    assert torch.equal(*weights)


def test_training_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    list(Training(TinyImages(), batch=2).steps(1))
    assert torch.equal(torch.rand(3), expected)


def test_what_reduces_gradients_is_wrapped_around_optimizer_and_model() -> None:
    seen: list[str] = []

    def wrap(optimizer: torch.optim.Optimizer, named: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        seen.extend(name for name, _ in named)
        optimizer.register_step_pre_hook(lambda *_: seen.append("step"))
        return optimizer

    def wrap_model(model: nn.Module) -> nn.Module:
        model.register_forward_pre_hook(lambda *_: seen.append("forward"))
        return model

    training = Training(Words(), batch=2, wrap=wrap, wrap_model=wrap_model)
    names = [name for name, _ in training.model.named_parameters()]
    list(training.steps(1))
    assert seen == [*names, "forward", "step"]


def train_as_a_rank(backend: str, groups: Groups) -> tuple[list[float], float]:
    """Losses, and the sum of all weights."""
    place = Place.from_environment()
    assert place is not None
    with reducing(backend, groups, CPU) as (wrap, wrap_model):
        training = Training(TinyImages(), rank=place.rank, batch=4, wrap=wrap, wrap_model=wrap_model)
        losses = [step.loss for step in training.steps(3)]
        weights = sum(float(weight.detach().double().sum()) for weight in training.model.parameters())
        return losses, weights


def test_whoever_reduces_the_gradients_of_two_ranks_they_learn_the_same() -> None:
    gloo = processes.run(2, train_as_a_rank, "ddp-gloo", None)
    (mine, weights), (others, others_weights) = gloo
    assert mine != others  # each on its own samples
    assert weights == others_weights
    for groups in (None, "layer", 3):
        ours = processes.run(2, train_as_a_rank, "optimizer", groups)
        for (losses, summed), (expected, summed_expected) in zip(ours, gloo, strict=True):
            assert losses == pytest.approx(expected, rel=1e-4)
            assert summed == pytest.approx(summed_expected, rel=1e-4)


def test_the_learning_rate_rises_and_falls() -> None:
    training = Training(Words(), batch=2, last=20)
    rates = []
    for _ in training.steps(20):
        rates.append(training.optimizer.param_groups[0]["lr"])
    assert rates[0] < rates[1] == max(rates)
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert 0 < rates[-1] < 0.1 * max(rates)


def test_masked_words_are_those_of_the_targets() -> None:
    task = Words()
    batch = task.samples(Draw(0, 0, 0), 200, CPU)
    words, asked = batch.targets[:, :-1], batch.targets[:, :-1] != IGNORED
    assert bool((words[asked] >= WORDS_FROM).all())
    assert not bool((batch.inputs[~asked] == MASK).any())
    share = float((batch.inputs[asked] == MASK).float().mean())
    assert share == pytest.approx(0.8, abs=0.05)
    assert set(batch.inputs[:, 0].tolist()) == {START}
    assert set(batch.inputs[:, -1].tolist()) == {END}
    assert set(batch.targets[:, -1].tolist()) == {0, 1}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    assert main([*arguments, "--device", "cpu", "--backend", "none"]) == 0
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_the_command_prints_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(capsys, "bert", "--steps", "3", "--batch", "4", "--json")
    assert out.count("\n") == 1
    result = json.loads(out)
    assert result["schema"] == "coordsim.training/1"
    assert (result["steps"], result["batch"], result["ranks"], len(result["losses"])) == (3, 4, 1, 3)
    assert result["held_out"][-1] == [3, result["error"]["end"]]
    assert err.count("\n") == 3


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_command_draws_a_figure(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "learns.png"
    out, _ = run(capsys, task, "--steps", "1", "--batch", "1" if task == "stemdl" else "2", "--figure", str(path))
    assert out.startswith("task ")
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert [each.name for each in tmp_path.iterdir()] == ["learns.png"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bert", "--steps", "0"], "0 is below 1"),
        (["bert", "--seed", "-1"], "-1 is below 0"),
        (["bert", "--groups", "2"], "--groups goes with --backend optimizer"),
        (["bert", "--groups", "some"], "'some' is neither a positive number nor layer"),
        (["bert", "--backend", "coord"], "torchrun --nproc-per-node 2"),
        (["bert", "--figure", "learns.pdf"], "must end in .png"),
        (["bert", "--figure", "no/such/folder/learns.png"], "there is no folder no/such/folder"),
        (["vgg16"], "invalid choice"),
    ],
)
def test_bad_input_is_said_before_training(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bert", "--device", "cuda"]) == 3
    assert "no GPU" in capsys.readouterr().err


def test_ranks_are_those_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert Place.from_environment() is None
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert Place.from_environment() == Place(rank=5, ranks=8, local_rank=1)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="allowed: none, coord"), reducing("nccl", None, CPU):
        pass
