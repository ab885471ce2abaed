"""What one rank did in a step: nothing counted twice, nothing cut, every nanosecond in one part."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordsim.record.ranks import merge_records
from coordsim.record.ranks.format import NULL
from coordsim.record.ranks.own import OwnStep, own_steps
from coordsim.record.ranks.reader import RankRecord, ResponseRecord, Span, SpanKind, StepRecord
from tests.record.ddp_job import Job

I, F, B, O, E, C, K = (  # noqa: E741
    SpanKind.INPUT, SpanKind.FORWARD, SpanKind.BACKWARD, SpanKind.OPTIMIZER, SpanKind.EVALUATION, SpanKind.CLOSURE,
    SpanKind.CHECKPOINT,
)  # fmt: skip


def step(*spans: tuple[SpanKind, int, int], ready: int, over: int = NULL, end: int = 1000, number: int = 0) -> OwnStep:
    """A step from 0 to ``end`` whose last gradient is there at ``ready`` and last collective over at ``over``."""
    record = RankRecord(Path("r"), {"rank": 0, "ranks": 2, "detailed": True, "settings": {"control_plane": "ddp"}})
    record.steps += [
        StepRecord(number - 1, NULL, NULL, NULL, NULL, NULL, 0, 0, 0, 0, 1),
        StepRecord(number, NULL, NULL, ready, ready, over, end, 0, 1, 0, 1, tuple(
            Span(kind, place, begin, until) for place, (kind, begin, until) in enumerate(spans)
        )),
    ]  # fmt: skip
    return own_steps(record)[number]


def parts(found: OwnStep) -> dict[str, int]:
    return {name: value for name, value in found.work._asdict().items() if value}


def test_waits_for_the_last_bucket_are_no_backward() -> None:
    found = step((I, 100, 200), (F, 250, 400), (B, 400, 800), (O, 850, 1000), ready=600, over=780)
    assert parts(found) == {
        "between_steps": 100, "input_stall": 150, "forward": 150, "backward": 220, "before_optimizer": 50,
        "optimizer": 150,
    }  # fmt: skip
    assert (found.tail, found.collectives_ns) == ((600, 780), 180)


def test_forward_and_backward_are_sums_over_passes() -> None:
    found = step((I, 0, 50), (F, 50, 150), (B, 150, 350), (I, 360, 400), (F, 400, 500), (B, 500, 900), (O, 900, 1000),
                 ready=700, over=880)  # fmt: skip
    assert parts(found) == {
        "between_steps": 10, "input_stall": 90, "forward": 200, "backward": 420, "optimizer": 100,
    }  # fmt: skip
    assert found.passes == 2


def test_what_a_closure_evaluates_is_forward_and_backward_not_the_optimizer() -> None:
    found = step((I, 0, 100), (O, 100, 150), (C, 150, 800), (F, 160, 400), (B, 400, 700), (O, 800, 1000),
                 ready=600, over=680)  # fmt: skip
    assert parts(found) == {
        "between_steps": 10, "input_stall": 100, "forward": 240, "backward": 220, "before_optimizer": 100,
        "optimizer": 250,
    }  # fmt: skip


def test_evaluation_and_checkpoints_are_between_steps_with_the_samples_that_they_read() -> None:
    found = step((I, 0, 50), (E, 50, 150), (I, 150, 200), (E, 200, 300), (K, 300, 400), (I, 400, 450), (F, 450, 600),
                 (B, 600, 800), (O, 800, 1000), ready=700, over=790)  # fmt: skip
    assert parts(found) == {
        "between_steps": 400, "input_stall": 50, "forward": 150, "backward": 110, "optimizer": 200
    }  # fmt: skip
    assert (found.evaluation_ns, found.checkpoint_ns) == (200, 100)


def test_a_teacher_that_is_called_before_the_model_leaves_its_samples_to_training() -> None:
    found = step((I, 0, 50), (E, 50, 150), (F, 150, 600), (B, 600, 800), (O, 800, 1000), ready=700, over=790)
    assert found.work.input_stall == 50
    assert found.work.between_steps == 100


def test_a_wait_inside_the_optimizer_is_no_optimizer() -> None:
    """As in DistributedOptimizer, whose step waits for the reductions."""
    found = step((F, 0, 200), (B, 200, 500), (O, 600, 1000), ready=490, over=900)
    assert found.tail == (600, 900)
    assert parts(found) == {"forward": 200, "backward": 300, "before_optimizer": 100, "optimizer": 100}
    assert found.before.backward + found.before.before_optimizer == 400
    assert found.after.optimizer == 100


def test_gathers_are_waits_wherever_they_are() -> None:
    record = RankRecord(Path("r"), {"rank": 0, "ranks": 2, "detailed": True, "settings": {"control_plane": "ddp"}})
    spans = (Span(F, 0, 0, 400), Span(B, 0, 400, 900), Span(O, 0, 900, 1000))
    record.steps.append(StepRecord(0, 0, 400, 700, 700, 850, 1000, 0, 1, 0, 1, spans))
    for place, (op, called, end) in enumerate(((1, 50, 150), (1, 120, 200), (1, 450, 500), (7, 710, 850))):
        record.responses.append(ResponseRecord(0, 0, place, 4, op, called, called, called, end, end, ()))
    found = own_steps(record)[0]
    assert (found.gathers_ns, found.collectives_ns) == (200, 150)
    assert parts(found) == {"forward": 250, "backward": 300, "optimizer": 100}


def test_marks_of_old_records_are_taken_as_one_pass() -> None:
    record = RankRecord(Path("r"), {"rank": 0, "ranks": 2, "settings": {"control_plane": "cached"}})
    record.steps += [StepRecord(4, 0, 100, 150, 200, 300, 400, 0, 1, 0, 0),
                     StepRecord(5, 450, 600, 650, 800, 900, 1000, 0, 1, 0, 0)]  # fmt: skip
    found = own_steps(record)[5]
    assert parts(found) == {"input_stall": 50, "forward": 150, "backward": 200, "optimizer": 100}
    assert found.collectives_ns == 100


moments = st.lists(st.integers(0, 1000), min_size=2, max_size=2).map(sorted)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(list(SpanKind)), moments), max_size=12), st.integers(0, 1000),
    st.one_of(st.just(NULL), st.integers(0, 1100)),
)  # fmt: skip
def test_work_and_waits_are_the_whole_step_whatever_was_recorded(
    spans: list[tuple[SpanKind, list[int]]], ready: int, over: int
) -> None:
    found = step(*((kind, begin, end) for kind, (begin, end) in spans), ready=ready, over=over)
    assert found.work.total + found.collectives_ns + found.gathers_ns == 1000
    assert min(found.work) >= 0


@pytest.mark.parametrize("number", [0, 7])
def test_a_step_begins_where_the_one_before_ended(number: int) -> None:
    assert step((F, 10, 500), (B, 500, 900), ready=600, number=number).begin_ns == 0


def test_a_step_that_the_hooks_did_not_end_is_left_out_and_hides_no_part_of_the_others() -> None:
    """A process can end before its hooks have told what its last step was, as a busy machine shows."""
    records = Job(ranks=2, steps=8).records()
    whole = merge_records(records)
    last = records[0].steps[-1]
    records[0].steps[-1] = last._replace(spans=())
    cut = merge_records(records)
    assert cut.trace.missing == whole.trace.missing
    assert cut.trace.steps["step"].size == whole.trace.steps["step"].size - 1
