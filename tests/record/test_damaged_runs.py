"""Runs with damage that no checksum shows: every verb that reads one answers, or says in one error what is wrong."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from coordsim.analyse.answer.opened import answer_run
from coordsim.analyse.calibrate.runs import read_runs
from coordsim.analyse.findings import find_out
from coordsim.analyse.predict import measured_workload
from coordsim.errors import InputError
from coordsim.record.breakdown import breakdown, step_times
from coordsim.record.ranks import read_folder, read_rank
from coordsim.record.ranks.format import MAGIC, Block, block
from coordsim.record.run import open_run
from coordsim.record.store import write_run
from coordsim.report.answer import answer_json, answer_screen
from coordsim.report.export import export_run
from coordsim.report.tables import Page
from tests.record.ddp_job import Causes, Job
from tests.record.negotiated_job import negotiated
from tests.record.streams import stream_blocks, write_records

EXTREMES = (0, 1, -1, 255, 1 << 31, (1 << 32) - 1, (1 << 61) - 1, -(1 << 61) + 1, (1 << 63) - 1, -(1 << 63))
STRANGE: tuple[Any, ...] = (
    None, True, 0, -1, 10**18, 10**30, 1.5, "", "x", "9" * 50, [], [1], {}, {"a": 1}, "\u202e\x1b[31m", [[]] * 3
)  # fmt: skip

Blocks = list[tuple[Block, bytes]]


def bytes_overwritten(blocks: Blocks, chance: Random) -> None:
    place, (kind, payload) = chosen(blocks, chance)
    data = bytearray(payload)
    for _ in range(chance.choice((1, 2, 8))):
        if data:
            data[chance.randrange(len(data))] = chance.randrange(256)
    blocks[place] = (kind, bytes(data))


def number_overwritten(blocks: Blocks, chance: Random) -> None:
    place, (kind, payload) = chosen(blocks, chance)
    if len(payload) >= 8:
        at = chance.randrange(len(payload) - 7)
        value = struct.pack("<Q", chance.choice(EXTREMES) & (1 << 64) - 1)
        blocks[place] = (kind, payload[:at] + value + payload[at + 8 :])


def block_cut(blocks: Blocks, chance: Random) -> None:
    place, (kind, payload) = chosen(blocks, chance)
    blocks[place] = (kind, payload[: chance.randrange(len(payload) + 1)])


def block_dropped(blocks: Blocks, chance: Random) -> None:
    del blocks[chosen(blocks, chance)[0]]


def block_repeated(blocks: Blocks, chance: Random) -> None:
    blocks.insert(chance.randrange(1, len(blocks) + 1), chosen(blocks, chance)[1])


def kind_changed(blocks: Blocks, chance: Random) -> None:
    place, (_, payload) = chosen(blocks, chance)
    blocks[place] = (chance.choice(list(Block)), payload)


def value_replaced(blocks: Blocks, chance: Random) -> None:
    """In the JSON of a head, a tensor or an end."""
    texts = [place for place, (kind, _) in enumerate(blocks) if kind in (Block.HEAD, Block.TENSOR, Block.END)]
    place = chance.choice(texts[:2] + texts[-1:] + [chance.choice(texts)])
    kind, payload = blocks[place]
    skipped = 4 if kind is Block.TENSOR else 0
    try:
        held = json.loads(payload[skipped:])
    except ValueError:
        return
    blocks[place] = (kind, payload[:skipped] + json.dumps(with_strange_value(held, chance)).encode())


def chosen(blocks: Blocks, chance: Random) -> tuple[int, tuple[Block, bytes]]:
    """A block of a random kind, so that rare kinds are met as often as others."""
    kind = chance.choice(sorted({kind for kind, _ in blocks}))
    place = chance.choice([place for place, (of, _) in enumerate(blocks) if of is kind])
    return place, blocks[place]


def with_strange_value(held: Any, chance: Random) -> Any:
    """``held`` with one value in it replaced, or one key dropped."""
    if isinstance(held, dict) and held:
        key = chance.choice(sorted(held))
        if chance.random() < 0.1:
            return {name: value for name, value in held.items() if name != key}
        if not isinstance(held[key], dict | list) or chance.random() < 0.3:
            return {**held, key: chance.choice(STRANGE)}
        return {**held, key: with_strange_value(held[key], chance)}
    if isinstance(held, list) and held:
        place = chance.randrange(len(held))
        return [*held[:place], with_strange_value(held[place], chance), *held[place + 1 :]]
    return chance.choice(STRANGE)


DAMAGES: tuple[Callable[[Blocks, Random], None], ...] = (
    bytes_overwritten, number_overwritten, block_cut, block_dropped, block_repeated, kind_changed, value_replaced,
)  # fmt: skip


def read_in_every_way(path: Path, target: Path) -> None:
    """What report, calibrate, export and predict do with a run. Only InputError may come of it."""
    said = []
    for read in (reported, calibrated, exported, predicted):
        try:
            read(path, target)
        except InputError as error:
            said.append(str(error))
    assert max(map(len, said), default=0) < 2000


def reported(path: Path, target: Path) -> None:
    run = open_run(path)
    answer = answer_run(run)
    json.dumps(answer_json(answer), allow_nan=False)
    answer_screen(answer, run.name, Page(), ranks=True)


def calibrated(path: Path, target: Path) -> None:
    read_runs([path])


def exported(path: Path, target: Path) -> None:
    for form in ("chrome", "horovod", "chakra", "goal"):
        export_run(path, form, target / form, None, 2000)


def predicted(path: Path, target: Path) -> None:
    records = open_run(path).records
    if records:
        measured_workload(records)


JOBS = {
    "ddp": lambda: Job(steps=8, causes=Causes(DATA_LATE=30), cores=2).records(),
    "negotiated": lambda: negotiated(ranks=3, steps=8),
}


def damage_records(seed: int, tmp_path: Path) -> None:
    """Write two or three ranks' records, one of them damaged in one to three places, and read them."""
    chance = Random(seed)
    records = JOBS[chance.choice(sorted(JOBS))]()
    folder = write_records(tmp_path / f"run-{seed}", records)
    victim = chance.choice(records)
    blocks = stream_blocks(victim)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        chance.choice(DAMAGES)(blocks, chance)
    data = MAGIC + b"".join(block(kind, payload) for kind, payload in blocks)
    (folder / f"rank-{victim.rank:05d}.rank").write_bytes(data)
    target = tmp_path / f"out-{seed}"
    target.mkdir()
    read_in_every_way(folder, target)


def damage_manifest(seed: int, stored: Path, target: Path) -> None:
    chance = Random(seed)
    path = stored / "manifest.json"
    intact = path.read_text()
    path.write_text(json.dumps(with_strange_value(json.loads(intact), chance)))
    try:
        read_in_every_way(stored, target)
    finally:
        path.write_text(intact)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with its ranks' records, of many keys."""
    folder = tmp_path_factory.mktemp("stored")
    records = write_records(folder / "records", Job(steps=8, causes=Causes(FWD=20), cores=2).records())
    run = open_run(records)
    assert run.merged is not None
    write_run(folder / "run", run.trace, run.facts, find_out(run.merged), records)
    return folder / "run"


@pytest.mark.parametrize("seed", range(60))
def test_damaged_records_are_read_or_refused(seed: int, tmp_path: Path) -> None:
    damage_records(seed, tmp_path)


@pytest.mark.parametrize("seed", range(60))
def test_damaged_manifests_are_read_or_refused(seed: int, stored: Path, tmp_path: Path) -> None:
    damage_manifest(seed, stored, tmp_path)


LONG_SEEDS = int(os.environ.get("COORDSIM_FUZZ_EXAMPLES", "500"))
"""500 take a minute and a half; 1000 to 1933 and 2500 to 3475 passed on 2026-11-29."""


@pytest.mark.long
def test_many_damaged_runs_are_read_or_refused(stored: Path, tmp_path: Path) -> None:
    for seed in range(1000, 1000 + LONG_SEEDS):
        damage_records(seed, tmp_path)
        damage_manifest(seed, stored, tmp_path)


def test_a_damaged_block_ends_the_record_there_and_the_report_says_so(tmp_path: Path) -> None:
    records = Job(steps=12).records()
    folder = write_records(tmp_path / "run", records)
    blocks = stream_blocks(records[1])
    steps = [place for place, (kind, _) in enumerate(blocks) if kind is Block.STEP]
    blocks[steps[9]] = (Block.STEP, b"short")
    path = folder / "rank-00001.rank"
    path.write_bytes(MAGIC + b"".join(block(kind, payload) for kind, payload in blocks))
    read = read_rank(path)
    assert [step.step for step in read.steps] == list(range(9))
    assert read.damage is not None
    assert read.damage.startswith(f"block {steps[9] + 1:,} (STEP) is damaged: ")
    run = open_run(folder)
    assert run.steps == range(9)
    screen = answer_screen(answer_run(run), "run", Page())
    assert "rest of rank-00001.rank: block" in " ".join(screen.split())


@pytest.mark.parametrize("data", [b"", MAGIC[:5], MAGIC, MAGIC + block(Block.HEAD, b"{}" * 40)[:20]])
def test_a_record_without_a_head_is_left_out_and_the_report_says_so(data: bytes, tmp_path: Path) -> None:
    folder = write_records(tmp_path / "run", Job(ranks=3, steps=12).records())
    (folder / "rank-00002.rank").write_bytes(data)
    run = open_run(folder)
    assert run.facts.ranks_absent == (2,)
    screen = answer_screen(answer_run(run), "run", Page())
    assert "rank-00002.rank: ends before its head" in " ".join(screen.split())


@pytest.mark.parametrize(("until_ns", "message"), [(1 << 60, "cycles; 20,000,000 at most can be replayed"), (5, None)])
def test_idle_cycles_beyond_all_measure_take_no_memory(until_ns: int, message: str | None, tmp_path: Path) -> None:
    records = negotiated(ranks=2, steps=8)
    records[1].idle[3] = records[1].idle[3]._replace(cycles=1 << 50, entered_first_ns=0, entered_last_ns=until_ns)
    folder = write_records(tmp_path / "run", records)
    if message is None:
        assert "idle cycles within 5 ns" in str(read_folder(folder)[1].damage)
    else:
        with pytest.raises(InputError, match=message):
            export_run(folder, "goal", tmp_path / "t.goal", None, 1000)


def test_steps_whose_collectives_were_lost_have_a_tail_all_the_same(tmp_path: Path) -> None:
    records = Job(steps=8).records()
    for record in records:
        record.responses.clear()
    run = open_run(write_records(tmp_path / "run", records))
    parts = breakdown(run.trace)
    assert (sum(parts.values()) == step_times(run.trace)).all()


@pytest.mark.parametrize("seed", [10389])
def test_damage_that_was_found_once_is_read_or_refused(seed: int, tmp_path: Path) -> None:
    damage_records(seed, tmp_path)


def test_where_no_record_has_a_head_there_is_nothing_to_report(tmp_path: Path) -> None:
    for rank in range(2):
        (tmp_path / f"rank-{rank:05d}.rank").write_bytes(MAGIC)
    with pytest.raises(InputError, match="2 ranks' records, and each ends before its head"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": "zero"}, "rank: damaged: 'zero' is no number of ranks"), ({"ranks": 10**12}, "is no number of ranks"),
        ({"rank": 7}, "damaged: rank 7 of 2"), ({"host": ["a"]}, "host: damaged"),
        ({"settings": []}, "settings: damaged"),
        ({"cores": "all"}, "cores: damaged"), ({"kinds": {"optimizers": 3}}, "kinds: damaged"),
        ({"started_unix_ns": 1 << 70}, "started_unix_ns: damaged"), ({"schema": "coordsim.rank/9"}, "later coordsim"),
    ],
)  # fmt: skip
def test_a_head_of_other_types_is_one_error(change: dict[str, object], message: str, tmp_path: Path) -> None:
    (record, _) = Job(steps=3).records()
    record.head |= change
    blocks = stream_blocks(record)
    path = tmp_path / "rank-00000.rank"
    path.write_bytes(MAGIC + b"".join(block(kind, payload) for kind, payload in blocks))
    with pytest.raises(InputError) as raised:
        read_rank(path)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)
