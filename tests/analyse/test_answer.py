"""One answer: its parts sum to the step, its numbers say where they come from, and all renderers show the same ones."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from coordsim import open_run
from coordsim.analyse.answer import AnswerKind, Basis, Candidate, Quantity
from coordsim.analyse.answer.opened import answer_run
from coordsim.analyse.answer.simulated import answer_simulation
from coordsim.analyse.explain import explain
from coordsim.record.run_facts import Provenance
from coordsim.record.store import write_run
from coordsim.report import text
from coordsim.report.answer import answer_json, answer_screen
from coordsim.report.tables import Page
from coordsim.simulate.engine import simulate
from tests.record.ddp_job import Causes, Job
from tests.record.streams import write_records
from tests.scenarios import scenario
from tests.told import answered


def test_the_parts_of_a_recorded_answer_sum_to_its_mean_step() -> None:
    answer = answered(Job(causes=Causes(DATA_LATE=30)).records())
    assert (answer.kind, answer.basis, answer.ranks, answer.steps) == (AnswerKind.RECORDED, Basis.MEASURED, 2, 20)
    known = [part.mean for part in answer.split if part.mean is not None]
    assert sum(mean.value for mean in known) == pytest.approx(answer.step_time.mean.value, rel=1e-12)
    assert {(mean.unit, mean.basis) for mean in known} == {("s", Basis.MEASURED)}


def test_what_a_replay_saves_has_its_interval_and_says_that_it_was_replayed() -> None:
    (candidate,) = answered(Job(causes=Causes(DATA_LATE=30)).records()).candidates or ()
    assert candidate.about == "late"
    assert candidate.saves.basis is Basis.REPLAYED
    assert candidate.saves.low is not None
    assert candidate.saves.high is not None
    assert candidate.saves.low <= candidate.saves.value <= candidate.saves.high
    assert candidate.saves.level == 0.9


def test_an_answer_cannot_be_changed() -> None:
    answer = answered(Job().records())
    with pytest.raises(FrozenInstanceError):
        answer.steps = 3  # type: ignore[misc]


def test_a_stored_simulation_answers_with_the_same_numbers_as_the_one_that_was_just_made(tmp_path: Path) -> None:
    simulation = simulate(scenario(8, 5, 42))
    made = answer_simulation(simulation)
    write_run(tmp_path / "run", simulation.trace, replace(made.facts, provenance=Provenance("0")))
    opened = answer_run(open_run(tmp_path / "run"))
    assert (opened.step_time, opened.split, opened.messages) == (made.step_time, made.split, made.messages)
    assert opened.control.requests_per_step == made.control.requests_per_step
    assert opened.lateness.wait_mean_s == made.lateness.wait_mean_s
    assert opened.kind is made.kind is AnswerKind.SIMULATED


def test_the_screen_and_json_show_the_same_numbers() -> None:
    simulation = simulate(scenario(8, 5, 42))
    answer = answer_simulation(simulation, explain(simulation))
    screen, found = answer_screen(answer, "run", Page()), answer_json(answer)
    assert f"step time     {text.seconds(found['step_time_s']['mean'])}  (" in screen
    for part, seconds in found["breakdown_s"].items():
        assert re.search(rf"^  {text.words(part)} +{re.escape(text.seconds(seconds))} ", screen, re.MULTILINE), part


@pytest.mark.parametrize(
    ("saves", "said"),
    [
        (0.25, "--groups layer brings the step to 7.5 ms and saves 25.0 %"),
        (0.001, "none of the 1 tried saves 0.5 % (best: --groups layer, 0.1 %)"),
    ],
)
def test_the_change_that_saves_most_is_told_if_it_is_worth_it(saves: float, said: str) -> None:
    step_time, saved = Quantity(0.0075, "s", Basis.SIMULATED), Quantity(saves, "1", Basis.SIMULATED)
    tried = Candidate("--groups layer", None, step_time, saved, "coordsim")
    answer = answer_simulation(simulate(scenario(8, 5, 42)), candidates=[tried])
    assert said in " ".join(answer_screen(answer, "run", Page()).split())


def test_names_of_a_hostile_run_cannot_steer_a_terminal(tmp_path: Path) -> None:
    records = Job(causes=Causes(BWD=20)).records()
    for record in records:
        record.head["host"] = "\x1b[2Jhost\n\u202e"
        record.tensors = [{**tensor, "name": f"\x1b]0;{tensor['name']}\x07"} for tensor in record.tensors]
    run = open_run(write_records(tmp_path / "run", records))
    screen = answer_screen(answer_run(run), "\x1b[31mrun", Page(), ranks=True)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", screen)
    assert "\\x1b[31mrun: real run" in screen
