"""Timelines as they come: whole, cut anywhere, compressed, damaged, or no timelines at all."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
from pathlib import Path

import pytest

from coordsim.errors import InputError
from coordsim.formats.horovod import EventKind, TimelineEvent, TimelineReader
from coordsim.formats.shared.json_text import CHUNK_BYTES, VALUE_LIMIT
from tests.timelines import REAL, real_events

SMALL = """[
{"name": "process_name", "ph": "M", "pid": 0, "args": {"start_time_since_epoch_in_micros":1700000000000000}},
{"name": "process_sort_index", "ph": "M", "pid": 0, "args": {"sort_index": 0}},
{"ph": "i", "name": "CYCLE_START", "ts": 900, "s": "g"},
{"name": "process_name", "ph": "M", "pid": 1, "args": {"name": "allreduce.fc.weight"}},
{"name": "process_sort_index", "ph": "M", "pid": 1, "args": {"sort_index": 1}},
{"ph": "B", "name": "NEGOTIATE_ALLREDUCE", "ts": 1200, "pid": 1},
{"ph": "X", "name": "0", "ts": 1201, "pid": 1, "dur": 0},{"ph": "X", "name": "1", "ts": 1209, "pid": 1, "dur": 0},
{"ph": "E", "ts": 1210, "pid": 1},\
{"ph": "B", "name": "ALLREDUCE", "ts": 1300, "pid": 1},
{"ph": "B", "name": "GLOO_ALLREDUCE", "ts": 1301, "pid": 1},{"ph": "E", "ts": 1400, "pid": 1},
{"ph": "E", "ts": 1402, "pid": 1, "args": {"dtype": "float32", "shape": "[10, 10]"}},\
{"ph": "E", "ts": 1403, "pid": 1},{"ph": "i", "name": "CYCLE_START", "ts": 2200, "s": "g"}]"""
NAME = "allreduce.fc.weight"
SAID = [
    TimelineEvent(EventKind.CYCLE, 900),
    TimelineEvent(EventKind.NEGOTIATE, 1200, NAME, "ALLREDUCE"),
    TimelineEvent(EventKind.TICK, 1201, NAME, rank=0),
    TimelineEvent(EventKind.TICK, 1209, NAME, rank=1),
    TimelineEvent(EventKind.AGREED, 1210, NAME),
    TimelineEvent(EventKind.OPERATION, 1300, NAME, "ALLREDUCE"),
    TimelineEvent(EventKind.ACTIVITY, 1301, NAME, "GLOO_ALLREDUCE"),
    TimelineEvent(EventKind.ACTIVITY_END, 1400, NAME),
    TimelineEvent(EventKind.OPERATION_END, 1402, NAME, dtype="float32", shape=(10, 10)),
    TimelineEvent(EventKind.STRAY_END, 1403, NAME),
    TimelineEvent(EventKind.CYCLE, 2200),
]
HEAD = '[{"name": "process_name", "ph": "M", "pid": 1, "args": {"name": "t"}},'


def read(path: Path, text: str | bytes) -> tuple[list[TimelineEvent], TimelineReader]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    reader = TimelineReader(path)
    return list(reader), reader


def problem(path: Path, text: str | bytes) -> str:
    """What is said of a file that is no timeline; always with its name."""
    with pytest.raises(InputError) as caught:
        read(path, text)
    said = str(caught.value)
    assert str(path) in said
    assert len(said) < 600
    return said


def test_every_event_by_its_meaning(tmp_path: Path) -> None:
    found, reader = read(tmp_path / "t.json", SMALL)
    assert found == SAID
    assert (reader.start_epoch_us, reader.lost, reader.events) == (1_700_000_000_000_000, None, 15)


def test_compression_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    assert read(tmp_path / "t.json", gzip.compress(SMALL.encode()))[0] == SAID
    assert read(tmp_path / "t.json.gz", SMALL)[0] == SAID


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_timelines_read_as_json_does(path: Path) -> None:
    said = real_events(path)
    reader = TimelineReader(path)
    found = list(reader)
    assert (reader.events, reader.lost) == (len(said), None)
    assert [each.ts_us for each in found] == [each["ts"] for each in said if "ts" in each]
    kinds = [each.kind for each in found]
    assert kinds.count(EventKind.NEGOTIATE) == kinds.count(EventKind.AGREED) == kinds.count(EventKind.OPERATION) == 2422
    assert kinds.count(EventKind.TICK) == sum(each["ph"] == "X" for each in said)
    assert EventKind.STRAY_END not in kinds


def test_a_file_cut_anywhere_is_read_up_to_the_cut(tmp_path: Path) -> None:
    """Every prefix that holds one event; never another event than those of the whole."""
    whole_until = [place for place in range(len(SMALL)) if SMALL.startswith("},", place)]
    for end in [*range(whole_until[0] + 1, len(SMALL) - 40, 3), *range(len(SMALL) - 40, len(SMALL))]:
        found, reader = read(tmp_path / "t.json", SMALL[:end])
        assert reader.lost is not None
        assert found == SAID[: len(found)]
        assert reader.events == sum(place < end for place in whole_until) + (end > len(SMALL) - 2)


def test_what_a_cut_took_is_said(tmp_path: Path) -> None:
    half = SMALL.index('"ts": 2200') + 3
    lost = read(tmp_path / "t.json", SMALL[:half])[1].lost
    assert lost is not None
    assert f"character {SMALL.rindex('{', 0, half)}" in lost
    assert read(tmp_path / "t.json", SMALL[:-1])[1].lost == "no closing bracket"
    assert read(tmp_path / "t.json", SMALL[:-1] + ",")[1].lost == "no closing bracket"
    assert read(tmp_path / "t.json", SMALL[:-1] + ",]")[1].lost is None


def test_a_cut_inside_a_character_or_the_compression(tmp_path: Path) -> None:
    text = SMALL.replace("fc.weight", "f\u00fcr").encode()
    found, reader = read(tmp_path / "t.json", text[: text.index(b"\xc3") + 1])
    assert found == [TimelineEvent(EventKind.CYCLE, 900)]
    assert reader.lost is not None
    assert "inside a character" in reader.lost
    noise = random.Random(0).randbytes(60_000).hex()
    packed = gzip.compress(SMALL[:-1].encode() + f',{{"ph": "i", "name": "{noise}", "ts": 1}}]'.encode())
    found, reader = read(tmp_path / "t.json", packed[: len(packed) // 2])
    assert found == SAID
    assert reader.lost is not None
    assert reader.lost.startswith("the compressed file is cut off; the event at character")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_events_may_straddle_the_pieces_in_which_a_file_is_read(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordsim.formats.shared.json_text.CHUNK_BYTES", size)
    text = SMALL.replace("fc.weight", "f\u00fcr \\u00fc \\\\ \\\" \U0001f600")
    found, reader = read(tmp_path / "t.json", text)
    assert [each.ts_us for each in found] == [each.ts_us for each in SAID]
    assert found[1].tensor == 'allreduce.f\u00fcr \u00fc \\ " \U0001f600'
    assert reader.lost is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("[]", "holds no event"),
        ("[\n", "holds no event"),
        ('[{"ph": "i", "na', "holds no event"),
        ("hello", "starts with 'h'"),
        ("{}", "starts with '{'"),
        ('{"traceEvents": [{"ph": "i"}]}', "expected a Horovod timeline: a JSON array of events"),
        ("12", "starts with '1'"),
        ("[1, 2]", "event 1 (character 1): is no object"),
        ('[{"ph": "i", "ts": 1} {"ph": "i", "ts": 1}]', "character 22: expected a comma"),
        ('[{"ph": "i", "ts": 1}] x', "character 23: text after the closing bracket"),
        ('[{"ph": "i", "ts": 1},, {}]', "character 22: Expecting value"),
        ('[{"ph": B}]', "character 8: Expecting value"),
        ("[{'ph': 'B'}]", "character 2: Expecting property name"),
        ('[{"ph": "i\n", "ts": 1}]', "character 10: Invalid control character"),
        ('[{"a": ' + "[" * 100_000, "nested too deep"),
        ('[{"a": ' + "9" * 5000 + "}]", "a number of absurd length"),
        ('[{"ph": "i", "ts": 1, "ts": 2}]', "character 1: an object with two keys 'ts'"),
        ('[{"a": "' + "x" * (VALUE_LIMIT + CHUNK_BYTES), "an event longer than 1,048,576 characters"),
    ],
)
def test_what_is_no_timeline_is_refused_with_its_place(text: str, said: str, tmp_path: Path) -> None:
    assert said in problem(tmp_path / "t.json", text)


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ("7", "event 2 (character 70): is no object"),
        ('{"ts": 1, "pid": 1}', 'has no text as "ph"'),
        ('{"ph": "B", "name": "A", "pid": 1}', 'no whole number as "ts"'),
        ('{"ph": "B", "name": "A", "ts": 1.5, "pid": 1}', 'no whole number as "ts"'),
        ('{"ph": "B", "name": "A", "ts": -1, "pid": 1}', 'no whole number as "ts"'),
        ('{"ph": "B", "name": "A", "ts": true, "pid": 1}', 'no whole number as "ts"'),
        ('{"ph": "B", "name": "A", "ts": 9223372036854775808, "pid": 1}', 'no whole number as "ts"'),
        ('{"ph": "B", "name": "A", "ts": NaN, "pid": 1}', 'no whole number as "ts"'),
        ('{"ph": "B", "name": "A", "ts": 1}', 'no whole number as "pid"'),
        ('{"ph": "B", "ts": 1, "pid": 1}', 'has no text as "name"'),
        ('{"ph": "E", "ts": 1, "pid": 1, "args": 3}', '"args" is no object'),
        ('{"name": "process_name", "ph": "M", "pid": 1, "args": {"name": 3}}', "names a process without text"),
        ('{"name": "process_name", "ph": "M", "pid": 1}', 'has no object as "args"'),
    ],
)
def test_an_event_of_another_structure_is_refused_with_its_place(event: str, said: str, tmp_path: Path) -> None:
    text = problem(tmp_path / "t.json", f"{HEAD}{event}]")
    assert said in text
    assert "event 2 (character 70)" in text


def test_ends_and_beginnings_that_cannot_be(tmp_path: Path) -> None:
    begin = '{"ph": "B", "name": "NEGOTIATE_ALLREDUCE", "ts": 1, "pid": 1}'
    assert "while it is still negotiated" in problem(tmp_path / "t.json", f"{HEAD}{begin},{begin}]")
    operation = '{"ph": "B", "name": "ALLREDUCE", "ts": 1, "pid": 1}'
    assert "nests activities of 't' too deep" in problem(tmp_path / "t.json", HEAD + ",".join([operation] * 20))
    for args in ('{"dtype": 3, "shape": "[1]"}', '{"dtype": "float32", "shape": [1]}',
                 '{"dtype": "float32", "shape": "[-1]"}', '{"dtype": "float32", "shape": "[1"}'):  # fmt: skip
        problem(tmp_path / "t.json", f'{HEAD}{operation},{{"ph": "E", "ts": 2, "pid": 1, "args": {args}}}]')


def test_a_tick_of_a_negotiation_that_began_before_the_file_is_passed_over(tmp_path: Path) -> None:
    text = HEAD + '{"ph": "X", "name": "0", "ts": 1, "pid": 1, "dur": 0},{"ph": "E", "ts": 1, "pid": 1}]'
    assert [each.kind for each in read(tmp_path / "t.json", text)[0]] == [EventKind.STRAY_END]


@pytest.mark.parametrize("text", [b"\xff\xfe[", b'[{"ph": "\xff"}]'])
def test_what_is_no_text_is_refused(text: bytes, tmp_path: Path) -> None:
    assert "not UTF-8" in problem(tmp_path / "t.json", text)


def test_damaged_compression_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(SMALL.encode())
    for data in (packed[:10] + b"\xff" + packed[11:], packed[:-8] + bytes(8), packed + b"more"):
        assert "damaged compression" in problem(tmp_path / "t.json", data)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "absent.json", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(InputError, match=said):
            list(TimelineReader(path))


def test_random_damage_is_refused_or_read_and_nothing_else(tmp_path: Path) -> None:
    dice = random.Random(7)
    refused = 0
    for _ in range(250):
        data = bytearray(SMALL.encode())
        for _ in range(dice.choice([1, 1, 2, 5])):
            place = dice.randrange(len(data))
            match dice.randrange(3):
                case 0:
                    data[place] = dice.randrange(256)
                case 1:
                    del data[place : place + dice.randrange(9)]
                case _:
                    data[place:place] = dice.choice([b"[", b"]", b'"', b"{", b"}", b",", b"\\", b"\x00", b"1e9"])
        try:
            read(tmp_path / "t.json", bytes(data))
        except InputError:
            refused += 1
    assert 80 < refused < 250


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordsim.formats.shared.json_text.CHUNK_BYTES", 4096)
    cycle = json.dumps(json.loads(SMALL)[5:-2])[1:-1]
    path = tmp_path / "t.json"
    path.write_text(SMALL[: SMALL.index('{"ph": "B"')] + ",".join([cycle] * 800) + "]")
    assert path.stat().st_size > 350_000
    tracemalloc.start()
    assert sum(1 for _ in TimelineReader(path)) == 1 + 8 * 800
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 120_000
