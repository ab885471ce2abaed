"""What a step is: spans of passes, optimizers, closures, input, evaluation and checkpoints, on an injected clock."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coordsim.record.ranks.reader import CpuTimes, Span, SpanKind
from real_backend.profile.cpu import Clocks
from real_backend.profile.steplog import MOST_SPANS, EndedStep, StepLog

BACKWARD, CHECKPOINT, CLOSURE, EVALUATION = (
    SpanKind.BACKWARD, SpanKind.CHECKPOINT, SpanKind.CLOSURE, SpanKind.EVALUATION
)  # fmt: skip
FORWARD, INPUT, OPTIMIZER, SKIPPED = SpanKind.FORWARD, SpanKind.INPUT, SpanKind.OPTIMIZER, SpanKind.OPTIMIZER_SKIPPED


class Script:
    """Plays a training script: everything that is done takes a given time, ms."""

    def __init__(self) -> None:
        self.now = 0
        self.core_wait: int | None = 0
        self.log = StepLog(lambda: Clocks(self.now, 3 * self.now, self.core_wait))
        self.ended: list[EndedStep] = []

    def take(self, ended: EndedStep | None) -> None:
        if ended is not None:
            self.ended.append(ended)

    def passes(self, time: int) -> Script:
        self.now += time
        return self

    def call(self, time: int = 1, model: int = 0, gradients: bool = True, training: bool = True) -> Script:
        self.take(self.log.release())
        self.log.called(model, self.now, gradients, training)
        self.now += time
        self.log.returned(self.now)
        return self

    def backward(self, time: int = 1) -> Script:
        self.take(self.log.release())
        self.log.backward(self.now)
        self.now += time
        self.log.backward_over(self.now)
        return self

    def step(self, time: int = 1, optimizer: int = 0) -> Script:
        self.log.optimizer(optimizer, optimizer, self.now)
        self.now += time
        self.take(self.log.optimizer_over(optimizer, self.now))
        return self

    def skip(self, time: int = 1, optimizer: int = 0) -> Script:
        begin, self.now = self.now, self.now + time
        self.take(self.log.skipped(optimizer, begin, self.now))
        return self

    def does(self, kind: SpanKind, time: int = 1) -> Script:
        begin, self.now = self.now, self.now + time
        self.take(self.log.release())
        self.log.spent(kind, begin, self.now)
        return self

    @property
    def kinds(self) -> list[str]:
        return [ended.details.kind for ended in self.ended]

    @property
    def spans(self) -> list[Span]:
        """Of the step that ended last."""
        return list(self.ended[-1].details.spans)

    def durations(self, kind: SpanKind) -> list[tuple[int, int]]:
        return [(span.place, span.end_ns - span.begin_ns) for span in self.spans if span.kind == kind]


def test_a_step_is_input_forward_backward_and_optimizer_with_what_lies_between() -> None:
    script = Script().does(INPUT, 5).call(7).passes(2).backward(11).passes(15).step(3)
    assert script.spans == [
        Span(INPUT, 0, 0, 5), Span(FORWARD, 0, 5, 14), Span(BACKWARD, 0, 14, 25), Span(OPTIMIZER, 0, 40, 43)
    ]  # fmt: skip
    assert script.ended[0].end_ns == 43
    assert script.ended[0].details.cpu == CpuTimes(43, 0, 129, 0)


def test_waits_for_a_core_are_counted_by_step_where_the_kernel_tells_them() -> None:
    script = Script().call(7).backward(11)
    script.core_wait = 4
    script.step(3).call(7).backward(11)
    script.core_wait = None
    script.step(3)
    assert [ended.details.cpu.core_wait_ns for ended in script.ended if ended.details.cpu] == [4, None]


def test_each_micro_batch_is_a_pass_of_its_own() -> None:
    script = Script()
    for _ in range(4):
        script.does(INPUT, 5).call(10).backward(20)
    script.step()
    assert script.durations(INPUT) == [(place, 5) for place in range(4)]
    assert script.durations(FORWARD) == [(place, 10) for place in range(4)]
    assert script.durations(BACKWARD) == [(place, 20) for place in range(4)]


def test_two_calls_before_one_backward_are_one_pass() -> None:
    script = Script().call(3).call(4).backward().step()
    assert script.durations(FORWARD) == [(0, 7)]


def test_a_skipped_step_ends_an_iteration_of_its_own_kind() -> None:
    script = Script()
    for number in range(6):
        script.call().backward()
        script.skip() if number % 3 == 0 else script.step()
    assert script.kinds == ["skipped", "optimizer 0", "optimizer 0"] * 2


def test_optimizers_that_take_turns_make_kinds_of_steps() -> None:
    script = Script()
    for _ in range(2):
        script.call(model=0).call(model=1).backward().step(optimizer=0)
        script.call(model=1).backward().step(optimizer=1)
    assert script.kinds == ["optimizer 0", "optimizer 1"] * 2


def test_models_that_take_turns_under_one_optimizer_make_kinds_of_steps() -> None:
    script = Script()
    for number in range(4):
        script.call(model=number % 2).backward().step()
    assert script.kinds == ["optimizer 0", "optimizer 0, model 1"] * 2


def test_a_part_of_several_optimizers_that_is_skipped_is_told_apart() -> None:
    script = Script()
    for number in range(3):
        script.call().backward().step(optimizer=0)
        script.skip(optimizer=1) if number == 1 else script.step(optimizer=1)
    script.take(script.log.release())
    assert script.kinds == ["optimizer 0", "optimizer 0+1, skipped 1", "optimizer 0+1"]


def test_a_closure_cuts_the_optimizers_own_time_out() -> None:
    script = Script()
    log = script.log
    log.optimizer("lbfgs", 0, script.now)
    for _ in range(2):
        script.passes(2)
        log.closure(script.now)
        script.call(5).backward(6)
        log.closure_over(script.now)
    script.passes(3)
    script.take(log.optimizer_over("lbfgs", script.now))
    assert script.kinds == ["closures 2"]
    assert script.durations(OPTIMIZER) == [(0, 2), (0, 2), (0, 3)]
    assert script.durations(CLOSURE) == [(0, 11), (1, 11)]
    assert script.durations(FORWARD) == [(0, 5), (1, 5)]


def test_one_closure_is_how_some_frameworks_step_and_no_kind_of_its_own() -> None:
    script = Script()
    script.log.optimizer("adam", 0, 0)
    script.log.closure(0)
    script.call().backward()
    script.log.closure_over(script.now)
    script.take(script.log.optimizer_over("adam", script.now))
    assert script.kinds == ["optimizer 0"]


def test_evaluation_with_the_input_that_it_is_fed_from_is_one_span() -> None:
    script = Script()
    for _ in range(3):
        script.does(INPUT, 10).call(20, gradients=False)
    script.does(CHECKPOINT, 7).does(INPUT, 5).call().backward().step()
    assert [(span.kind, span.end_ns - span.begin_ns) for span in script.spans] == [
        (EVALUATION, 90), (CHECKPOINT, 7), (INPUT, 5), (FORWARD, 1), (BACKWARD, 1), (OPTIMIZER, 1)
    ]  # fmt: skip


def test_a_teacher_without_gradients_leaves_the_input_before_it_alone() -> None:
    script = Script().does(INPUT, 10).call(20, model=1, gradients=False).call().backward().step()
    assert script.durations(INPUT) == [(0, 10)]
    assert script.durations(EVALUATION) == [(1, 20)]


def test_an_evaluation_mode_with_gradients_is_told_by_whether_backward_follows() -> None:
    script = Script().call(30, training=False).does(INPUT).call(4).backward().step()
    assert script.durations(EVALUATION) == [(0, 30)]
    assert script.durations(FORWARD) == [(0, 4)]
    script.call(9, training=False).backward().step()
    assert script.durations(EVALUATION) == []
    assert script.durations(FORWARD) == [(0, 9)]


def test_input_taken_between_forward_and_backward_is_no_part_of_forward() -> None:
    script = Script().call(4).does(INPUT, 50).backward().step()
    assert script.durations(FORWARD) == [(0, 4)]
    assert script.durations(INPUT) == [(0, 50)]


def test_what_a_model_does_inside_its_own_call_is_part_of_it() -> None:
    script = Script()
    script.log.called(0, 0, gradients=True, training=True)
    script.does(CHECKPOINT, 3).call(5, model=1, gradients=False)
    script.log.returned(script.now)
    script.backward().step()
    assert script.durations(FORWARD) == [(0, 8)]
    assert len(script.spans) == 3


def test_an_optimizer_that_steps_without_gradients_is_no_step() -> None:
    script = Script().step().call().backward().step()
    assert script.kinds == ["optimizer 0"]


def test_a_step_that_raised_does_not_swallow_the_next() -> None:
    script = Script().call().backward()
    script.log.optimizer(0, 0, script.now)
    script.step()
    assert script.durations(OPTIMIZER) == [(0, 1)]


def test_a_million_skipped_batches_do_not_fill_the_memory() -> None:
    script = Script()
    for _ in range(3 * MOST_SPANS):
        script.does(INPUT, 2)
    script.call().backward().step()
    assert len(script.spans) == MOST_SPANS + 3
    assert sum(duration for _, duration in script.durations(INPUT)) == 6 * MOST_SPANS


def test_an_optimizer_made_anew_is_told_by_its_index() -> None:
    log = Script().log
    assert [log.index("optimizers", key, "Adam") for key in ("a", "b", "a")] == [0, 1, 0]


def test_a_record_that_begins_late_is_told_all_names() -> None:
    script = Script()
    script.log.index("optimizers", "a", "SGD")
    script.call().backward().step()
    script.log.announce()
    script.log.index("optimizers", "b", "Adam")
    script.call().backward().step()
    assert [list(ended.details.names) for ended in script.ended] == [
        [("optimizers", "SGD")], [("optimizers", "SGD"), ("optimizers", "Adam")]
    ]  # fmt: skip


ACTIONS = st.sampled_from(["input", "call", "evaluate", "maybe", "backward", "step", "step 1", "skip", "wait", "save"])


@pytest.mark.filterwarnings("error")
@example(["backward", "call", "input", "step"])
@given(st.lists(ACTIONS, max_size=60))
def test_whatever_a_script_does_spans_do_not_overlap_and_lie_in_their_step(actions: list[str]) -> None:
    script = Script()
    play = {
        "input": lambda: script.does(INPUT, 2), "call": lambda: script.call(3), "wait": lambda: script.passes(1),
        "evaluate": lambda: script.call(4, gradients=False), "maybe": lambda: script.call(5, training=False),
        "backward": lambda: script.backward(6), "step": lambda: script.step(2), "skip": lambda: script.skip(1),
        "step 1": lambda: script.step(2, optimizer=1), "save": lambda: script.does(CHECKPOINT, 1),
    }  # fmt: skip
    for action in actions:
        play[action]()
    script.take(script.log.release())
    before = 0
    for ended in script.ended:
        for span in ended.details.spans:
            assert before <= span.begin_ns <= span.end_ns <= ended.end_ns
            before = span.end_ns
        assert any(span.kind == BACKWARD for span in ended.details.spans)
        before = ended.end_ns
