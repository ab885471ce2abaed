"""Run directories: all or nothing, the same bytes for the same run, and damage is noticed."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coordsim.errors import InputError
from coordsim.record import store
from coordsim.record.run_facts import Provenance, RunFacts, RunKind, SimulatedFrom
from coordsim.record.store import check_target, read_run, write_run
from coordsim.record.trace import SCHEMA, Trace, difference
from tests.record.hand_made import two_cycles

FACTS = RunFacts(
    kind=RunKind.SIMULATED, ranks=4, provenance=Provenance("0"),
    simulated=SimulatedFrom({"ranks": 4}),
)  # fmt: skip
OTHER = replace(FACTS, provenance=Provenance("1"))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    write_run(tmp_path / "run", two_cycles(), FACTS)
    return tmp_path / "run"


@pytest.mark.parametrize("blocking", [False, True])
def test_round_trip(tmp_path: Path, blocking: bool) -> None:
    written = replace(two_cycles(), blocking=blocking)
    write_run(tmp_path / "run", written, FACTS)
    trace, facts, findings = read_run(tmp_path / "run")
    assert difference(trace, written) is None
    assert trace.blocking is blocking
    assert (facts, findings) == (FACTS, None)
    assert json.loads((tmp_path / "run" / "manifest.json").read_text()) == {
        "version": "0", "scenario": {"ranks": 4}, "schema": SCHEMA,
        "blocking": blocking, "trace_sha256": written.digest(),
    }  # fmt: skip
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"manifest.json", "trace.npz"}
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o755


def test_what_earlier_versions_kept_beside_it_is_no_hindrance(run_dir: Path) -> None:
    """They wrote the summary of a simulation into the manifest, which nobody read."""
    manifest = json.loads((run_dir / "manifest.json").read_text())
    (run_dir / "manifest.json").write_text(json.dumps({**manifest, "summary": {"step_time_s": 0.25}}))
    assert read_run(run_dir).facts == FACTS


def test_same_bytes_twice(tmp_path: Path) -> None:
    """No entry of the archive carries the time of day."""
    write_run(tmp_path / "one", two_cycles(), FACTS)
    write_run(tmp_path / "two", two_cycles(), FACTS)
    names = ["manifest.json", "trace.npz"]
    assert filecmp.cmpfiles(tmp_path / "one", tmp_path / "two", names, shallow=False) == (names, [], [])
    with zipfile.ZipFile(tmp_path / "one" / "trace.npz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_another_trace_gives_other_bytes(run_dir: Path) -> None:
    before = (run_dir / "trace.npz").read_bytes()
    other = two_cycles()
    other.steps["end_ns"][1] += 1
    write_run(run_dir, other, FACTS)
    assert (run_dir / "trace.npz").read_bytes() != before
    assert difference(read_run(run_dir)[0], other) is None
    assert [path.name for path in run_dir.parent.iterdir()] == ["run"], "the earlier run is replaced, not kept"


def test_a_byte_flipped_anywhere_is_noticed_or_harmless(run_dir: Path) -> None:
    """Harmless: a field of the archive that nobody reads."""
    intact, noticed = (run_dir / "trace.npz").read_bytes(), 0
    for place in range(0, len(intact), 29):
        damaged = bytearray(intact)
        damaged[place] ^= 0xFF
        (run_dir / "trace.npz").write_bytes(damaged)
        try:
            trace = read_run(run_dir).trace
        except InputError:
            noticed += 1
        else:
            assert difference(trace, two_cycles()) is None
    assert noticed > len(intact) // 29 / 2


@pytest.mark.parametrize("length", [0, 1, 30, 500, -1, -30])
def test_a_cut_archive_is_noticed(run_dir: Path, length: int) -> None:
    intact = (run_dir / "trace.npz").read_bytes()
    (run_dir / "trace.npz").write_bytes(intact[:length])
    with pytest.raises(InputError, match=r"trace\.npz: damaged"):
        read_run(run_dir)


def forge(run_dir: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """A valid archive with other content."""
    with np.load(run_dir / "trace.npz") as stored:
        columns = dict(stored)
    change(columns)
    np.savez_compressed(run_dir / "trace.npz", **columns)


def test_a_changed_column_is_noticed(run_dir: Path) -> None:
    forge(run_dir, lambda columns: columns["steps.end_ns"].__setitem__(0, 1))
    with pytest.raises(InputError, match="digest differs"):
        read_run(run_dir)


def test_a_lacking_column_is_noticed(run_dir: Path) -> None:
    forge(run_dir, lambda columns: columns.pop("cycles.wake_hash"))
    with pytest.raises(InputError, match=r"damaged.*wake_hash"):
        read_run(run_dir)


def test_another_schema_is_refused(run_dir: Path) -> None:
    edit(run_dir, schema="coordsim.record/9")
    with pytest.raises(InputError, match=r"coordsim\.record/9.*allowed: coordsim\.record/1"):
        read_run(run_dir)


def edit(run_dir: Path, **changes: object) -> None:
    path = run_dir / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "changes", [{"trace_sha256": "0" * 64}, {"trace_sha256": None}, {"blocking": True}, {"blocking": None}]
)
def test_an_edited_manifest_is_noticed(run_dir: Path, changes: dict[str, object]) -> None:
    """``blocking`` too: the breakdown depends on it."""
    edit(run_dir, **changes)
    with pytest.raises(InputError, match=r"digest differs|blocking"):
        read_run(run_dir)


@pytest.mark.parametrize("text", [b"", b"{", b"[1, 2]", b"3", b"\xff\xfe", b"null"])
def test_a_manifest_that_is_none(run_dir: Path, text: bytes) -> None:
    (run_dir / "manifest.json").write_bytes(text)
    with pytest.raises(InputError, match=r"manifest\.json: not"):
        read_run(run_dir)


@pytest.mark.parametrize(("name", "message"), [("manifest.json", "no run directory"), ("trace.npz", "damaged")])
def test_a_missing_file_is_named(run_dir: Path, name: str, message: str) -> None:
    (run_dir / name).unlink()
    with pytest.raises(InputError, match=message):
        read_run(run_dir)


def test_no_directory_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run directory"):
        read_run(tmp_path / "nothing")


def folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("precious")


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [folder, Path.mkdir, Path.touch, dangling], ids=lambda make: make.__name__)
def test_what_is_no_run_is_left_alone(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "mine")
    before = snapshot(tmp_path)
    for act in (check_target, lambda path: write_run(path, two_cycles(), FACTS)):
        with pytest.raises(InputError, match="is not a run directory"):
            act(tmp_path / "mine")
    assert snapshot(tmp_path) == before


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"folder .*absent does not exist"):
        write_run(tmp_path / "absent" / "run", two_cycles(), FACTS)
    assert snapshot(tmp_path) == {}


def test_a_relative_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_target(Path("run"))
    write_run(Path("run"), two_cycles(), FACTS)
    write_run(Path("run"), two_cycles(), FACTS)
    assert set(snapshot(tmp_path)) == {"run", "run/manifest.json", "run/trace.npz"}


def snapshot(root: Path) -> dict[str, bytes]:
    """Everything below ``root``: relative name -> content."""
    found = {}
    for path in sorted(root.rglob("*")):
        found[path.relative_to(root).as_posix()] = path.read_bytes() if path.is_file() else b""
    return found


FAILURES = {
    "compressing": (np.lib.format, "write_array"),
    "manifest": (store.json, "dumps"),
    "digest": (Trace, "digest"),
}


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["full", "interrupt"])
@pytest.mark.parametrize("where", FAILURES)
@pytest.mark.parametrize("replacing", [False, True])
def test_nothing_is_left_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, where: str, replacing: bool
) -> None:
    if replacing:
        write_run(tmp_path / "run", two_cycles(), FACTS)
    before, reached = snapshot(tmp_path), []

    def fail(*arguments: object, **columns: object) -> None:
        reached.append(len(list(tmp_path.iterdir())))
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(*FAILURES[where], fail)
        with pytest.raises(type(error)):
            write_run(tmp_path / "run", two_cycles(), OTHER)
    assert reached == [1 + replacing], "it had begun to write"
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("error", [OSError("stale handle"), KeyboardInterrupt()], ids=["stale", "interrupt"])
@pytest.mark.parametrize("at", [1, 2])
def test_the_earlier_run_survives_a_failed_replacement(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, at: int
) -> None:
    """The first rename takes the earlier run away, the second puts the new one there."""
    before, renames, rename = snapshot(run_dir.parent), [], os.rename

    def failing(source: Path, target: Path) -> None:
        renames.append(source)
        if len(renames) == at:
            raise error
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(type(error)):
        write_run(run_dir, two_cycles(), OTHER)
    assert len(renames) >= at
    assert snapshot(run_dir.parent) == before


def test_a_copied_run_can_be_read(run_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(run_dir, tmp_path / "elsewhere")
    assert difference(read_run(tmp_path / "elsewhere")[0], two_cycles()) is None


@pytest.mark.parametrize("text", ["{}", '{"name": "app", "icons": []}', "[1]", "not JSON", '{"schema": "other/1"}'])
def test_another_tools_manifest_makes_no_run_directory(tmp_path: Path, text: str) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "manifest.json").write_text(text)
    with pytest.raises(InputError, match="is not a run directory"):
        check_target(tmp_path / "web")


def test_a_run_that_somebody_keeps_notes_in_is_not_replaced(run_dir: Path) -> None:
    (run_dir / "notes.txt").write_text("precious")
    with pytest.raises(InputError, match=r"also holds notes\.txt, which would be lost"):
        write_run(run_dir, two_cycles(), FACTS)
    assert (run_dir / "notes.txt").read_text() == "precious"
