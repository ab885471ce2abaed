"""What a RUN is: one answer for every kind, and one clear error for what is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from coordsim import open_run
from coordsim.analyse.answer.opened import findings_of
from coordsim.analyse.findings import find_out
from coordsim.errors import InputError
from coordsim.record.findings import Findings
from coordsim.record.ranks import merge_records
from coordsim.record.run_facts import Command, Provenance, RunFacts, RunKind, SimulatedFrom
from coordsim.record.store import write_run
from tests.record.ddp_job import Causes, Job
from tests.record.hand_made import two_cycles
from tests.record.streams import write_records

EARLIER = Path(__file__).parents[1] / "data" / "runs" / "before_rank_tables"


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A folder of two ranks' records, rank 1 late by its input."""
    return write_records(tmp_path / "records", Job(steps=12, causes=Causes(DATA_LATE=30)).records())


@pytest.fixture
def profiled(tmp_path: Path, recorded: Path) -> Path:
    """A run directory that keeps its ranks' records."""
    run = open_run(recorded)
    assert run.merged is not None
    facts = RunFacts(**{**vars(run.facts), "command": Command(exit_code=3, running=True)})
    write_run(tmp_path / "profiled", run.trace, facts, find_out(run.merged), recorded)
    return tmp_path / "profiled"


def test_a_folder_of_records_is_merged(recorded: Path) -> None:
    run = open_run(str(recorded))
    assert (run.facts.kind, run.facts.ranks, run.steps, run.kept) == (RunKind.RECORDED, 2, range(12), None)
    assert [record.rank for record in run.records] == [0, 1]
    found = findings_of(run)
    assert found is not None
    assert [unit.ranks for unit in found.stragglers.late] == [(1,)]


def test_a_profiled_run_has_its_trace_its_findings_and_its_records(profiled: Path) -> None:
    run = open_run(profiled)
    assert (run.merged, run.facts.command) == (None, Command(exit_code=3, running=True))
    found = findings_of(run)
    assert found is not None
    assert found.kept is not None
    assert [unit.ranks for unit in found.stragglers.late] == [(1,)]
    assert [record.rank for record in run.records] == [0, 1]


def test_what_was_written_is_what_is_read(profiled: Path, recorded: Path) -> None:
    merged = open_run(recorded).merged
    assert merged is not None
    written, read = find_out(merged), open_run(profiled).findings
    assert read is not None
    assert Findings(**{**vars(read), "kept": None}) == written


def test_steps_are_chosen_from_the_ranks_records(profiled: Path, recorded: Path) -> None:
    for path in (profiled, recorded):
        run = open_run(path, range(3, 7))
        assert run.steps == range(3, 7)
        assert run.merged is not None
    assert open_run(profiled, range(3, 7)).facts.command == Command(exit_code=3)


def test_a_simulated_run_says_who_decides(tmp_path: Path) -> None:
    scenario = {"ranks": 4, "control_plane": {"name": "cached"}}
    facts = RunFacts(kind=RunKind.SIMULATED, ranks=4, control_plane="cached", simulated=SimulatedFrom(scenario),
                     provenance=Provenance("1"))  # fmt: skip
    write_run(tmp_path / "run", two_cycles(), facts)
    run = open_run(tmp_path / "run")
    assert (run.facts, run.records, findings_of(run)) == (facts, (), None)
    with pytest.raises(InputError, match=r"--steps: .* keeps no ranks' records"):
        open_run(tmp_path / "run", range(1, 2))


def test_a_run_directory_of_an_earlier_version_opens() -> None:
    run = open_run(EARLIER)
    assert (run.facts.ranks, run.facts.ended_early) == (2, (1,))
    assert run.facts.command is not None
    assert run.facts.command.end is not None
    assert str(run.facts.command.end.failure).startswith("rank 1 failed first")
    assert run.findings is not None
    assert (run.findings.rank_table, run.findings.recommendation.largest) == (None, None)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schema", "coordsim.record/2", "coordsim.record/2 is written by a later coordsim; this one reads up to"),
        ("schema", "coordsim.record/x", "schema 'coordsim.record/x'; allowed"),
        ("schema", {"a": 1}, "schema {'a': 1}"),
        ("ranks", "many", "ranks: 'many': "),
        ("ranks", [2], "ranks: "),
        ("hosts", {"zero": "a"}, "hosts.zero"),
        ("hosts", ["a"], "hosts: "),
        ("ended_early", {"0": 1}, "ended_early: "),
        ("waited_for", [[1, 2]], "waited_for.0"),
        ("stragglers", {}, "stragglers.verdict: is missing"),
        ("stragglers", "nobody", "stragglers: "),
        ("recommendation", {"change": 3}, "recommendation.change: "),
        ("endings", [{"rank": 0}], "endings.0.code: is missing"),
        ("clocks", {"0": {"offset_ns": 1.5, "error_ns": None}}, "clocks.0.offset_ns: "),
        ("missing_parts", 7, "missing_parts: is not a list of names"),
        ("first_step", 10**30, "not JSON: 10000"),
    ],
)
def test_a_damaged_manifest_is_one_error_with_its_place(
    tmp_path: Path, key: str, value: object, message: str
) -> None:
    shutil.copytree(EARLIER, tmp_path / "run")
    path = tmp_path / "run" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(InputError) as raised:
        open_run(tmp_path / "run")
    assert str(path) in str(raised.value)
    assert message in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("text", ["[" * 100_000, '{"schema": NaN}', '{"a": 1e999}', '{"a": ' + "9" * 10_000 + "}"])
def test_a_hostile_manifest_is_one_error(tmp_path: Path, text: str) -> None:
    shutil.copytree(EARLIER, tmp_path / "run")
    (tmp_path / "run" / "manifest.json").write_text(text)
    with pytest.raises(InputError, match="not JSON") as raised:
        open_run(tmp_path / "run")
    assert len(str(raised.value)) < 400


def test_merged_records_are_kept_as_they_were_found(tmp_path: Path) -> None:
    merged = merge_records(Job(steps=12).records())
    write_run(tmp_path / "run", merged.trace, merged.facts, find_out(merged))
    assert open_run(tmp_path / "run").facts == merged.facts


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_what_is_no_run_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no folder with ranks' records \(\*\.rank\)"):
        open_run(tmp_path / name)
