"""The compiled scan says of every event what the strict reader says, whatever the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordsim.errors import InputError
from coordsim.formats.horovod import EventKind, TimelineReader
from coordsim.formats.horovod.columns import ColumnReader
from coordsim.formats.horovod.scan import MARGIN
from tests.budget import examples
from tests.formats.horovod.test_reader import SMALL
from tests.timelines import REAL

Row = tuple[object, ...]
Outcome = tuple[list[Row], str | None, tuple[object, ...]]
PADDING = ',{"ph": "i", "name": "CYCLE_START", "ts": 5000, "s": "g"}' * (2 + MARGIN // 50)
"""So that what stands before it is scanned, and not left to the strict reader as the end of the text is."""


def strictly(path: Path) -> Outcome:
    reader, rows, problem = TimelineReader(path), [], None
    try:
        for event in reader:
            numel = -1
            if event.shape is not None:
                numel = 1
                for extent in event.shape:
                    numel *= extent
            what = event.dtype if event.kind is EventKind.OPERATION_END and event.shape is not None else event.what
            rows.append((event.kind, event.ts_us, event.tensor, what, event.rank, numel))
    except InputError as error:
        problem = str(error)
    return rows, problem, (reader.events, reader.lost, reader.start_epoch_us)


def fast(path: Path) -> Outcome:
    reader, problem = ColumnReader(path), None
    rows: list[Row] = []
    try:
        for batch in reader.batches():
            rows += _rows(reader, batch)
    except InputError as error:
        problem = str(error)
        rows += _rows(reader, reader._taken())
    return rows, problem, (reader.events, reader.lost, reader.start_epoch_us)


def _rows(reader: ColumnReader, batch: object) -> Iterator[Row]:
    for number, ts, slot, what, numel in zip(*batch, strict=True):  # type: ignore[misc]
        kind = EventKind(number)
        tensor = reader.tensors[slot] if slot >= 0 else ""
        if kind is EventKind.TICK:
            yield kind, ts, tensor, "", what, numel
        else:
            yield kind, ts, tensor, reader.words.names[what] if what >= 0 else "", -1, numel


def same(path: Path) -> None:
    assert fast(path) == strictly(path)


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_timelines(path: Path) -> None:
    same(path)
    rows, problem, _ = fast(path)
    assert len(rows) > 25_000
    assert problem is None


def test_most_of_a_real_timeline_is_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the comparison would compare the strict reader with itself."""
    strict = []
    typed = ColumnReader._typed
    monkeypatch.setattr(ColumnReader, "_typed", lambda self, value: strict.append(value) or typed(self, value))
    reader = ColumnReader(REAL[0])
    assert sum(batch.kind.size for batch in reader.batches()) > 25_000
    assert len([value for value in strict if value["ph"] != "M"]) < 50


def test_wherever_the_pieces_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.json"
    path.write_text(SMALL[:-1] + PADDING + "," + SMALL[SMALL.index('{"ph": "B"') : -1])
    for size in (1 << 18, 4099, 2048 + 77):
        monkeypatch.setattr("coordsim.formats.shared.json_text.CHUNK_BYTES", size)
        same(path)


def test_cut_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    text = SMALL[:-1] + PADDING
    for end in range(len(text) - 400, len(text), 7):
        path.write_text(text[:end])
        same(path)


_NUMBERS = st.sampled_from([
    "0", "1", "7", "1234567", "01", "-1", "1.5", "1e3", "9" * 18, "9" * 19, "9" * 25, "null", "NaN", "",
])  # fmt: skip
_PIDS = st.sampled_from(["1", "2", "2", "1", "3", "0", "1048577", "01", "-1", "9" * 20])
_NAMES = st.sampled_from([
    "NEGOTIATE_ALLREDUCE", "ALLREDUCE", "NEGOTIATE_", "NEGOTIATE_ALLREDUCE", "MPI_ALLREDUCE", "f\u00fcr", "a\\\"b",
    "a\\u0041", "x" * 300, "", "0", "../../etc/passwd",
])  # fmt: skip
_RANKS = st.sampled_from(["0", "1", "003", "1048575", "1234567890", "-1", "x", ""])
_SHAPES = st.sampled_from([
    "[]", "[1]", "[10, 10]", "[10,10]", "[10,  10]", "[0, 99999999]", "[007]", "[-1]", "[1", "[,]", "[1,]",
    "[33554432, 3]",
    "[" + ", ".join(["1"] * 32) + "]", "[" + ", ".join(["1"] * 33) + "]",
])  # fmt: skip
_TAILS = st.sampled_from(["}", "}", "}", "} ", ', "tid": 3}', ', "ts": 4}', "", "}}"])


@st.composite
def _event(draw: st.DrawFn) -> str:
    ts, pid = draw(_NUMBERS), draw(_PIDS)
    match draw(st.integers(0, 9)):
        case 0:
            return f'{{"ph": "i", "name": "CYCLE_START", "ts": {ts}, "s": "g"' + draw(_TAILS)
        case 1 | 2 | 3:
            return f'{{"ph": "B", "name": "{draw(_NAMES)}", "ts": {ts}, "pid": {pid}' + draw(_TAILS)
        case 4 | 5 | 6:
            return f'{{"ph": "E", "ts": {ts}, "pid": {pid}' + draw(_TAILS)
        case 7:
            args = f'{{"dtype": "{draw(_NAMES)}", "shape": "{draw(_SHAPES)}"' + draw(_TAILS)
            return f'{{"ph": "E", "ts": {ts}, "pid": {pid}, "args": {args}' + draw(_TAILS)
        case 8:
            return f'{{"ph": "X", "name": "{draw(_RANKS)}", "ts": {ts}, "pid": {pid}, "dur": 0' + draw(_TAILS)
        case _:
            return json.dumps({"name": "process_name", "ph": "M", "pid": 3, "args": {"name": draw(_NAMES)}})


_GOOD = st.builds(
    lambda kind, ts, pid, name, rank: {
        "i": f'{{"ph": "i", "name": "CYCLE_START", "ts": {ts}, "s": "g"}}',
        "B": f'{{"ph": "B", "name": "{name}", "ts": {ts}, "pid": {pid}}}',
        "E": f'{{"ph": "E", "ts": {ts}, "pid": {pid}}}',
        "A": f'{{"ph": "E", "ts": {ts}, "pid": {pid}, "args": {{"dtype": "float32", "shape": "[{ts}, 3]"}}}}',
        "X": f'{{"ph": "X", "name": "{rank}", "ts": {ts}, "pid": {pid}, "dur": 0}}',
    }[kind],
    st.sampled_from("iBBBEEEEAX"), st.integers(0, 10**7), st.integers(1, 2),
    st.sampled_from(["NEGOTIATE_ALLREDUCE", "ALLREDUCE", "MPI_ALLREDUCE"]), st.integers(0, 9),
)  # fmt: skip
HEAD = "[" + ",".join(
    json.dumps({"name": "process_name", "ph": "M", "pid": pid, "args": {"name": f"t{pid}"}}) for pid in (1, 2)
)  # fmt: skip


@settings(max_examples=examples(400), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(good=st.lists(_GOOD, max_size=25), odd=st.lists(_event(), max_size=3), more=st.lists(_GOOD, max_size=10),
       space=st.sampled_from([",", ",\n", ", ", ",\n\n\t", ",,", " "]))  # fmt: skip
def test_whatever_a_file_holds(tmp_path: Path, good: list[str], odd: list[str], more: list[str], space: str) -> None:
    path = tmp_path / "t.json"
    text = space.join([HEAD, *good, *odd, *more])
    path.write_text(text + PADDING + "]", encoding="utf-8")
    same(path)


def test_more_than_any_job_has_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.json"
    begin, args = '{"ph": "B", "name": "A", "ts": 1, "pid": 1}', '{"dtype": "float32", "shape": "[99999999999999, 99]"}'
    path.write_text(f'{HEAD},{begin},{{"ph": "E", "ts": 1, "pid": 1, "args": {args}}}]')
    assert "has a tensor of more than" in str(fast(path)[1])
    monkeypatch.setattr("coordsim.formats.horovod.columns.MOST_TENSORS", 1)
    assert "introduces more than 1 tensors" in str(fast(path)[1])
