"""The coordinator's microbenchmark counts right in both arms; nothing here looks at a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from coordsim.analyse.request_cost import SCHEMA, Point, microbenchmark, request_cost_interval
from coordsim.protocol import wire
from coordsim.protocol.messages import RequestList
from tests.bench import coordinator_cost as bench

RANKS, ASKED = 5, 7
WANTED = bench.requests(ASKED)
REQUEST_AT = [17 + sum(wire.request_bytes(each) for each in WANTED[:index]) for index in range(ASKED)]
"""Where each request begins in a list."""


def made() -> bench.Bytes:
    return bench.messages(WANTED, RANKS)


def test_messages_are_the_wires_own() -> None:
    assert [row.tobytes() for row in made()] == [
        wire.encode(RequestList(rank, tuple(WANTED))) for rank in range(RANKS)
    ]
    big = bench.messages(WANTED[:1], 70_000)
    assert wire.decode_requests(big[66_000].tobytes()).rank == 66_000


@pytest.mark.parametrize("asked", [1, 2, 64, 161])
@pytest.mark.parametrize("ranks", [1, 2, 40])
def test_both_arms_complete_every_name_in_order(asked: int, ranks: int) -> None:
    wanted = bench.requests(asked)
    every, names = bench.messages(wanted, ranks), [each.name for each in wanted]
    assert bench.count_in_python([row.tobytes() for row in every], ranks) == names
    assert bench.counted_compiled(every, asked) == names


def test_a_name_that_one_rank_lacks_completes_in_neither() -> None:
    """Rank 3 asks for another name in place 4, of the same length, so its table has one more row."""
    every = made()
    every[3, REQUEST_AT[4] + 35] ^= 1
    rest = [each.name for index, each in enumerate(WANTED) if index != 4]
    assert bench.count_in_python([row.tobytes() for row in every], RANKS) == rest
    assert bench.counted_compiled(every, ASKED + 1) == rest


@pytest.mark.parametrize(
    ("place", "what"),
    [
        (0, "magic"), (3, "kind"), (8, "a rank out of range"), (9, "too many requests"), (12, "a billion requests"),
        (REQUEST_AT[2] + 1, "another dtype than rank 0's"), (REQUEST_AT[2] + 33, "a name that is too long"),
        (REQUEST_AT[1] - 8, "another shape than rank 0's"),
    ],
)  # fmt: skip
def test_the_compiled_arm_looks_at_what_it_reads(place: int, what: str) -> None:
    every = made()
    every[2, place] ^= 0x41
    with pytest.raises(ValueError, match="malformed at byte"):
        bench.counted_compiled(every, ASKED)


def test_the_compiled_arm_finds_a_rank_that_asks_twice() -> None:
    every = made()
    every[3] = every[2]
    with pytest.raises(ValueError, match="malformed"):
        bench.counted_compiled(every, ASKED)


def test_names_in_one_slot_are_kept_apart() -> None:
    """Four slots for three names: some names meet in one."""
    wanted = bench.requests(3)
    every = bench.messages(wanted, RANKS)
    first, counts, complete = np.zeros(4, np.int64), np.zeros(4, np.int64), np.zeros(3, np.int64)
    flat, seen = every.reshape(-1), np.zeros((4, RANKS), np.uint8)
    assert bench.count_compiled(flat, every.shape[1], RANKS, first, counts, seen, complete) == 3
    assert sorted(counts.tolist()) == [0, RANKS, RANKS, RANKS]
    assert seen.sum() == 3 * RANKS


def test_a_point_says_what_was_counted() -> None:
    flush = np.zeros(8, dtype=np.uint8)
    size = wire.list_bytes(RequestList(0, tuple(bench.requests(16))))
    for arm in ("compiled", "python"):
        point = bench.measure(arm, "cold", 16, 20 * size / 1e6, flush, 1)
        assert (point.arm, point.messages, point.requests, point.nbytes) == (arm, 20, 320, 20 * size)


def test_a_quick_run_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Small sizes: the file that it writes is one that the analysis reads."""
    out = tmp_path / "cost.json"
    bench.main(quick=True, committed=False, out=out)
    found = json.loads(out.read_text(encoding="utf-8"))
    assert list(tmp_path.iterdir()) == [out]
    assert found["schema"] == SCHEMA
    points = [Point(**each) for each in found["points"]]
    assert {(each.arm, each.memory) for each in microbenchmark(points)} == {
        ("compiled", "cold"), ("compiled", "warm"), ("python", "cold"),
    }  # fmt: skip
    assert request_cost_interval(found).measured.startswith(found["date"])
    shown = capsys.readouterr().out
    assert "27,600 ranks x 161 tensors" in shown
    bench.main(quick=False, committed=True, out=None)
    assert request_cost_interval().measured in capsys.readouterr().out
