"""The screen of a recorded run: what an engineer who has never seen it reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from coordsim.record.ranks import RankRecord
from coordsim.report.answer import answer_screen
from coordsim.report.tables import Page
from tests.record.ddp_job import MS, Causes, Job
from tests.told import answered, told


def shown(records: list[RankRecord], **more: Any) -> str:
    screen = answer_screen(answered(records), "run", Page(), **more)
    assert max(map(len, screen.splitlines())) <= 80
    return screen


def flat(screen: str) -> str:
    return " ".join(screen.split())


def test_plain_ddp_has_no_rows_of_a_negotiation() -> None:
    screen = shown(Job().records())
    for word in ("control", "cycle wait", "clocks", "negotiat"):
        assert word not in screen


def test_the_rank_whose_step_is_shown_is_named() -> None:
    screen = shown(Job(causes=Causes(DATA_LATE=30)).records())
    assert "where it goes on rank 0" in screen
    assert "rank 0 is the median one of 2 by its own work" in screen
    assert "in the median step rank 0 waits 29." in flat(screen)


def test_a_late_rank_is_named_with_its_place_and_marked_in_the_table() -> None:
    screen = shown(Job(causes=Causes(FWD_ALL=20, DATA_LATE=30)).records())
    assert "Where: by its input (samples), 30.0" in flat(screen)
    assert "30.6*" in screen
    assert "recommended bring rank 1 (node0), which is late by its input (samples)" in flat(screen)


def test_the_table_of_ranks_is_there_when_ranks_differ_or_when_it_is_asked_for() -> None:
    quiet = Job().records()
    assert "each rank's own ms" not in shown(quiet)
    assert "each rank's own ms" in shown(quiet, ranks=True)
    assert "to opt.: from backward to the optimizer" in flat(shown(quiet, ranks=True))


def test_of_many_ranks_the_slowest_the_middle_and_the_fastest_are_shown() -> None:
    records = Job(ranks=30, causes=Causes(FWD=9, LATE_RANK=17)).records()
    screen = shown(records)
    assert "10 of 30 ranks: slowest, median, fastest by own work" in flat(screen)
    rows = screen[screen.index("rank between") :].splitlines()[1:11]
    assert rows[0].split()[0] == "17"
    assert len(told(records)["rank_table"]["ranks"]) == 30


def test_the_largest_part_is_told_where_nothing_can_be_predicted() -> None:
    screen = flat(shown(Job(causes=Causes(OPT=15)).records()))
    assert "largest optimizer, 79.7 % of the step. No replay can predict what a change there saves" in screen
    assert "recommended nothing" in screen


def test_outlying_steps_are_named_and_explain_the_mean() -> None:
    screen = flat(shown(Job(causes=Causes(EVAL=900)).records()))
    assert "outliers step 10 took 904" in screen
    assert "(mostly between steps)" in screen
    assert "the mean without: 4.4" in screen


@pytest.mark.parametrize(("ranks", "said"), [(2, "none to spare: 2 ranks of 1 thread on 2 cores"),
                                             (4, "oversubscribed: 4 ranks of 1 thread on 2 cores")])  # fmt: skip
def test_shared_cores_are_said(ranks: int, said: str) -> None:
    assert said in flat(shown(Job(ranks=ranks, cores=2).records()))


def kinds(job: Job, labels: list[str]) -> list[RankRecord]:
    """The job's records with kinds of steps that take turns."""
    records = job.records()
    for record in records:
        record.head["kinds"] = {"optimizers": ["Adam", "SGD"], "models": []}
        record.steps = [
            step._replace(step_kind=labels[step.step % len(labels)]) for step in record.steps
        ]  # fmt: skip
    return records


def test_kinds_of_steps_are_told_apart() -> None:
    screen = shown(kinds(Job(), ["optimizer 0", "optimizer 1"]))
    assert "kinds of step 10 steps of " in flat(screen)
    assert "10 steps of Adam, 4." in flat(screen)
    assert "10 steps of SGD, 4." in flat(screen)
    (head,) = [line for line in screen.splitlines() if "where it goes" in line]
    assert head.split()[-2:] in (["Adam", "SGD"], ["SGD", "Adam"])


def test_skipped_steps_are_told_apart() -> None:
    assert "of skipped, 4" in flat(shown(kinds(Job(), ["optimizer 0", "optimizer 0", "skipped"])))


def test_several_passes_are_said_to_be_summed() -> None:
    records = Job().records()
    for record in records:
        for place, step in enumerate(record.steps):
            spans = list(step.spans)
            first = spans[2]._replace(end_ns=spans[2].begin_ns + MS // 10)
            second = spans[2]._replace(begin_ns=spans[2].begin_ns + MS // 10, place=1)
            record.steps[place] = step._replace(spans=(*spans[:2], first, second, *spans[3:]))
    assert "a step 2 backward passes; forward and backward below are their sums" in flat(shown(records))


def test_one_rank_is_nobodys_straggler() -> None:
    screen = shown(Job(ranks=1).records())
    assert "\n  late" not in screen
    assert "last to come" not in screen


def test_a_few_steps_of_a_run_can_be_looked_at() -> None:
    found = told(replace(Job(), steps=31).records(), range(5, 15))
    assert (found["first_step"], found["steps"]) == (5, 10)
