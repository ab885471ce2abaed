"""The trace's one encoder, its hashes, and how two traces are compared."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordsim.record.trace import (
    CYCLE_COLUMNS,
    RESPONSE_COLUMNS,
    STEP_COLUMNS,
    CycleRow,
    Kind,
    Trace,
    TraceWriter,
    as_signed,
    difference,
    schedule_hash,
    wake_hash,
)
from coordsim.simulate.vector.kernels.readiness import wake_hash_kernel
from tests.budget import examples
from tests.record.hand_made import row, two_cycles

SHIFTED = [name for name in CycleRow.__dataclass_fields__ if name.endswith("_ns")]


def later(one: CycleRow, by_ns: int) -> CycleRow:
    return replace(one, **{name: getattr(one, name) + by_ns for name in SHIFTED})


@st.composite
def bulks(draw: st.DrawFn) -> list[tuple[CycleRow, int, int]]:
    """(row, repeat, period), one after the other; few distinct values, so that neighbours often join."""
    clock, made = 0, []
    for _ in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from([Kind.IDLE, Kind.IDLE, Kind.IDLE, Kind.IDLE, Kind.SLOW]))
        repeat = draw(st.integers(1, 5)) if kind == Kind.IDLE else 1
        period = draw(st.sampled_from([10, 10, 15]))
        clock += draw(st.sampled_from([10, 10, 15]))
        finish = clock - draw(st.sampled_from([3, 3, 3, 4]))
        made.append((row(clock, finish, finish - 1, kind, step=draw(st.sampled_from([0, 0, 0, 1]))), repeat, period))
        clock += (repeat - 1) * period
    return made


def run_lengths(rows: list[CycleRow]) -> list[tuple[int, int, int, CycleRow]]:
    """docs/semantics.md 8 read literally: (cycle, repeat, period, first row) of each run, greedily from the left."""
    runs: list[list[int]] = []
    for index, each in enumerate(rows):
        if runs and each.kind == Kind.IDLE:
            first, repeat, period = runs[-1]
            previous = rows[index - 1].enter_last_ns
            distance = each.enter_last_ns - previous
            same = later(rows[first], each.enter_last_ns - rows[first].enter_last_ns) == each
            if same and (repeat == 1 or distance == period):
                runs[-1][1:] = [repeat + 1, distance]
                continue
        runs.append([index, 1, 0])
    return [(first, repeat, period, rows[first]) for first, repeat, period in runs]


def table(trace: Trace) -> list[tuple[int, int, int, CycleRow]]:
    names = [name for name in CYCLE_COLUMNS if name not in ("cycle", "repeat", "period_ns")]
    columns = trace.cycles
    return [
        (int(columns["cycle"][i]), int(columns["repeat"][i]), int(columns["period_ns"][i]),
         CycleRow(**{name: int(columns[name][i]) for name in names}))
        for i in range(columns["cycle"].size)
    ]  # fmt: skip


@settings(max_examples=examples(400), deadline=None)
@given(bulks())
def test_bulk_equals_row_by_row_equals_the_definition(made: list[tuple[CycleRow, int, int]]) -> None:
    bulk, single, rows = TraceWriter(), TraceWriter(), []
    for first, repeat, period in made:
        assert bulk.next_cycle == len(rows)
        bulk.cycle(first, repeat, period)
        for index in range(repeat):
            rows.append(later(first, index * period))
            single.cycle(rows[-1])
    in_bulk, one_by_one = bulk.finish(), single.finish()
    assert difference(in_bulk, one_by_one) is None
    assert in_bulk.digest() == one_by_one.digest()
    assert table(in_bulk) == run_lengths(rows)


def encoded(*made: tuple[CycleRow, int, int]) -> list[tuple[int, int, int]]:
    writer = TraceWriter()
    for each in made:
        writer.cycle(*each)
    return [found[:3] for found in table(writer.finish())]


def idle(enter_ns: int, **changes: int) -> CycleRow:
    return row(enter_ns, enter_ns - 3, enter_ns - 4, Kind.IDLE, **changes)


def test_joins() -> None:
    """Each case is (cycle, repeat, period) by hand."""
    assert encoded((idle(10), 4, 10)) == [(0, 4, 10)]
    assert encoded((idle(10), 2, 10), (idle(30), 3, 10)) == [(0, 5, 10)]
    # the first of the second bulk still joins, one period on; the others keep another distance
    assert encoded((idle(10), 3, 10), (idle(40), 3, 15)) == [(0, 4, 10), (4, 2, 15)]
    # a run of one takes whatever distance comes next
    assert encoded((idle(10), 1, 0), (idle(17), 3, 10)) == [(0, 2, 7), (2, 2, 10)]
    assert encoded((idle(10), 1, 0), (idle(17), 2, 7)) == [(0, 3, 7)]
    assert encoded((idle(10), 2, 10), (idle(30, wake_hash=5), 2, 10)) == [(0, 2, 10), (2, 2, 10)]
    assert encoded((idle(10), 2, 10), (idle(30, step=1), 1, 0)) == [(0, 2, 10), (2, 1, 0)]


def test_only_idle_cycles_join() -> None:
    busy = [row(10, 7, 6, Kind.SLOW), row(20, 17, 16, Kind.SLOW), row(30, 27, 26, Kind.SLOW)]
    assert encoded(*((each, 1, 0) for each in busy)) == [(0, 1, 0), (1, 1, 0), (2, 1, 0)]
    assert encoded((idle(10), 1, 0), (row(20, 17, 16, Kind.FAST), 1, 0), (idle(30), 1, 0)) == [
        (0, 1, 0), (1, 1, 0), (2, 1, 0),
    ]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in SHIFTED if name != "enter_last_ns"])
def test_a_row_that_differs_in_one_time_does_not_join(name: str) -> None:
    odd = replace(idle(20), **{name: getattr(idle(20), name) + 1})
    assert encoded((idle(10), 1, 0), (odd, 1, 0)) == [(0, 1, 0), (1, 1, 0)]


def test_tables_are_int64_and_complete() -> None:
    trace = two_cycles()
    names = {"cycles": CYCLE_COLUMNS, "responses": RESPONSE_COLUMNS, "steps": STEP_COLUMNS}
    for title, expected in names.items():
        columns = getattr(trace, title)
        assert tuple(columns) == expected
        assert all(column.dtype == np.int64 and column.ndim == 1 for column in columns.values())
    assert asdict(row(0)).keys() == set(CYCLE_COLUMNS) - {"cycle", "repeat", "period_ns"}
    empty = TraceWriter().finish()
    assert all(column.shape == (0,) for column in empty.cycles.values())


def by_definition(values: list[int]) -> int:
    """splitmix64's finaliser of each value plus its rank's odd constant; summed, modulo 2**64."""
    mask, total = (1 << 64) - 1, 0
    for rank, value in enumerate(values, 1):
        z = (value + rank * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
        total += z ^ z >> 31
    return as_signed(total)


offsets = st.lists(st.integers(-(2**40), 0), max_size=40)


@settings(deadline=None)
@given(offsets)
def test_wake_hash_is_the_same_in_numpy_in_the_kernel_and_in_python(values: list[int]) -> None:
    array = np.array(values, dtype=np.int64)
    assert wake_hash(array) == as_signed(int(wake_hash_kernel(array))) == by_definition(values)


@given(offsets.filter(lambda values: len(set(values)) > 1), st.data())
def test_wake_hash_knows_who_was_late(values: list[int], data: st.DataObject) -> None:
    one = data.draw(st.integers(0, len(values) - 1))
    other = data.draw(st.sampled_from([i for i, value in enumerate(values) if value != values[one]] or [one]))
    swapped = list(values)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    hashes = {wake_hash(np.array(each, dtype=np.int64)) for each in (values, swapped, [*values, 0], values[:-1])}
    assert len(hashes) == 4
    assert all(-(2**63) <= each < 2**63 for each in hashes)


def test_as_signed() -> None:
    assert [as_signed(v) for v in (0, 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64)] == [0, 1, 2**63 - 1, -(2**63), -1, 0]


def test_schedule_hash_knows_names_order_and_fusion() -> None:
    schedules = [[["a", "b"]], [["b", "a"]], [["a"], ["b"]], [["b"], ["a"]], [["ab"]], [["a"]], []]
    assert len({schedule_hash(each) for each in schedules}) == len(schedules)
    assert schedule_hash([]) == 0
    assert schedule_hash([("a", "b")]) == schedule_hash([["a", "b"]])


CELLS = [
    (title, name, index)
    for title in ("cycles", "responses", "steps")
    for name, column in getattr(two_cycles(), title).items()
    for index in (0, column.size - 1)
]


@pytest.mark.parametrize(("title", "name", "index"), CELLS)
def test_every_cell_counts(title: str, name: str, index: int) -> None:
    left, right = two_cycles(), two_cycles()
    assert difference(left, right) is None
    assert left.digest() == right.digest()
    before = int(getattr(right, title)[name][index])
    getattr(right, title)[name][index] += 1
    assert difference(left, right) == f"{title}[{index}].{name}: {before} against {before + 1}"
    assert left.digest() != right.digest()


def test_difference_names_the_first() -> None:
    """Steps before responses before cycles; the leftmost column; its first row."""
    left, right = two_cycles(), two_cycles()
    right.cycles["requests"][0] += 1
    right.cycles["kind"][1:] += 1
    assert str(difference(left, right)).startswith("cycles[1].kind")
    right.responses["end_ns"][1] += 1
    assert str(difference(left, right)).startswith("responses[1].end_ns")
    right.steps["end_ns"][0] += 1
    assert str(difference(left, right)).startswith("steps[0].end_ns")


def test_difference_in_length_and_in_blocking() -> None:
    left = two_cycles()
    short = replace(left, cycles={name: column[:-1] for name, column in left.cycles.items()})
    assert difference(left, short) == "cycles: 3 rows against 2"
    assert left.digest() != short.digest()
    assert difference(left, replace(left, blocking=True)) == "blocking: False against True"


FACTS = [("blocking", True), ("missing", frozenset({"forward"})), ("own", {"forward": np.array([3])})]


@pytest.mark.parametrize(("fact", "value"), FACTS)
def test_digest_and_difference_agree_on_what_is_equal(fact: str, value: object) -> None:
    left, right = two_cycles(), replace(two_cycles(), **{fact: value})
    assert difference(left, right)
    assert left.digest() != right.digest()
    assert difference(right, replace(two_cycles(), **{fact: value})) is None
    assert right.digest() == replace(two_cycles(), **{fact: value}).digest()


def test_a_digest_of_an_earlier_version_is_that_of_its_trace_still() -> None:
    """Then ``blocking`` did not count; of a trace that does not block, nothing has changed."""
    written = "7a1d"
    blocking = replace(two_cycles(), blocking=True)
    assert blocking.has_digest(blocking.digest())
    assert blocking.has_digest(two_cycles().digest())
    assert not two_cycles().has_digest(blocking.digest())
    assert not two_cycles().has_digest(written)
