"""Folders, archives and files of no known format, whatever format the others are."""

from __future__ import annotations

import gzip
import io
import pickle
import random
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

from coordsim.errors import InputError
from coordsim.formats.shared import job_files
from coordsim.formats.shared.job_files import open_job_files
from coordsim.formats.shared.small_files import first_bytes, small_bytes
from coordsim.formats.shared.sources import Member, names_in_job, open_source
from coordsim.formats.table import import_source

DATA = Path(__file__).parents[2] / "data"
TABLE = DATA / "nccl_tests" / "all_reduce_2nodes.txt"
KINETO = [DATA / "torch_traces" / f"kineto_rank{rank}.json.gz" for rank in (0, 1)]
FLIGHT = [DATA / "torch_traces" / f"flight_rank{rank}.pickle" for rank in (0, 1)]
CHAKRA = [DATA / "torch_traces" / f"chakra_rank{rank}.json.gz" for rank in (0, 1)]
HOROVOD = [DATA / "horovod_runs" / "tl_gloo_n4_cache.timeline.json.gz"]
SOURCES = {"kineto": KINETO, "flight-recorder": FLIGHT, "chakra": CHAKRA, "horovod": HOROVOD, "nccl-tests": [TABLE]}


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("form", SOURCES)
@pytest.mark.parametrize("packed", ["t.zip", "t.tar", "t.tar.gz", "t.tgz", "folder"])
def test_every_format_is_read_from_archives_and_nested_folders(form: str, packed: str, tmp_path: Path) -> None:
    files = {f"job/run/{path.name}": path.read_bytes() for path in SOURCES[form]}
    target = tmp_path / packed
    if packed == "folder":
        for name, data in files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(data)
    else:
        (zipped if packed == "t.zip" else tarred)(target, files)
    (plain := tmp_path / "plain").mkdir()
    for path in SOURCES[form]:
        (plain / path.name).write_bytes(path.read_bytes())
    read, expected = import_source(target, "auto"), import_source(plain, "auto")
    assert (read.format, read.summary, read.files) == (form, expected.summary, expected.files)
    assert read.unknown == expected.unknown
    assert not read.not_read


def test_files_of_no_known_format_are_listed_with_their_number(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(TABLE.read_text())
    (tmp_path / "job.sh").write_text("#!/bin/sh\nmpirun ./all_reduce_perf -b 8 -e 1G\n")
    (tmp_path / "README.md").write_text("The columns algbw and busbw are explained in PERFORMANCE.md.\n")
    (tmp_path / "empty.log").write_text("")
    (tmp_path / ".hidden").write_text("x")
    read = import_source(tmp_path, "auto")
    assert read.files == ["t.txt"]
    assert read.not_read == {"files of no known format (README.md, empty.log, job.sh)": 3}


def test_a_folder_in_which_nothing_is_known_is_an_error(tmp_path: Path) -> None:
    for place in range(5):
        (tmp_path / f"{place}.log").write_text("hello\n")
    with pytest.raises(InputError, match=r"holds no recording of a known format .*0.log begins with 'hello'.*2 more"):
        import_source(tmp_path, "auto")


def test_two_formats_in_a_folder_are_chosen_between(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(TABLE.read_text())
    for path in KINETO:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError) as caught:
        import_source(tmp_path, "auto")
    assert "choose one with --format kineto or --format nccl-tests" in str(caught.value)
    read = import_source(tmp_path, "nccl-tests")
    assert read.files == ["t.txt"]
    assert read.not_read == {"files of format kineto (kineto_rank0.json.gz, kineto_rank1.json.gz)": 2}


def test_an_archive_in_an_archive_is_not_opened(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip", {"t.txt": TABLE.read_bytes()}).read_bytes()
    read = import_source(zipped(tmp_path / "outer.zip", {"inner.zip": inner, "t.txt": TABLE.read_bytes()}), "auto")
    assert read.not_read == {"an archive in an archive; unpack the outer one first (inner.zip)": 1}


def test_archives_in_a_folder_are_opened_and_a_damaged_one_is_listed(tmp_path: Path) -> None:
    for rank, path in enumerate(KINETO):
        zipped(tmp_path / f"rank{rank}.zip", {path.name: path.read_bytes()})
    (tmp_path / "rank2.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    read = import_source(tmp_path, "auto")
    assert read.summary["ranks"] == 2
    assert list(read.not_read) == ["a zip archive that is cut off or damaged: File is not a zip file (rank2.zip)"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "C:\\x\\t.txt", "a" * 10_000, "\n\x1b[31m", "con"])
@pytest.mark.parametrize("packed", ["t.zip", "t.tar"])
def test_a_members_name_is_only_printed(name: str, packed: str, tmp_path: Path) -> None:
    target = (zipped if packed == "t.zip" else tarred)(tmp_path / packed, {name: TABLE.read_bytes()})
    assert import_source(target, "auto").summary["ranks"] == 4


def test_two_members_of_one_name_are_two_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("a", b"first")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a", b"second")
    with open_job_files(tmp_path / "t.zip") as job:
        assert [first_bytes(file, 9) for file in job.files] == [b"first", b"second"]


def test_members_can_be_opened_in_another_process_and_at_once(tmp_path: Path) -> None:
    target = zipped(tmp_path / "t.zip", {"a": b"a" * 100_000, "b": b"b" * 100_000})
    with open_job_files(target) as job:
        one, two = (pickle.loads(pickle.dumps(file)) for file in job.files)
        with open_source(one) as first, open_source(two) as second:
            assert {first.read(10), second.read(10), first.read(10)} == {b"a" * 10, b"b" * 10}


def test_the_temporary_copy_of_a_compressed_tar_is_removed(tmp_path: Path) -> None:
    with open_job_files(tarred(tmp_path / "t.tgz", {"a": b"x", "b": b"y"})) as job:
        member = job.files[0]
        assert isinstance(member, Member)
        assert member.store.exists()
    assert not member.store.exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_method_of_zip_is_read(method: int, tmp_path: Path) -> None:
    target = zipped(tmp_path / "t.zip", {"t.txt.gz": gzip.compress(TABLE.read_bytes())}, method)
    assert import_source(target, "auto").summary["ranks"] == 4


def with_flag(data: bytes, flag: int) -> bytes:
    """A zip of one member whose general purpose flags are ``flag`` in both headers."""
    changed = bytearray(data)
    changed[6], changed[data.index(b"PK\x01\x02") + 8] = flag, flag
    return bytes(changed)


def test_archives_that_cannot_be_read_give_one_true_error(tmp_path: Path) -> None:
    good = zipped(tmp_path / "g.zip", {"t.txt": TABLE.read_bytes()}).read_bytes()
    swapped = bytearray(good)
    swapped[60] ^= 0xFF
    tar = tarred(tmp_path / "g.tar", {"t.txt": TABLE.read_bytes()}).read_bytes()
    cases = {
        "cut": (good[:-30], "cut off or damaged"),
        "encrypted": (with_flag(good, 1), "'t.txt' is encrypted; unpack it first"),
        "damaged": (bytes(swapped), "damaged compression"),
        "empty": (b"PK\x05\x06" + bytes(18), "a zip archive without files"),
        "method": (good.replace(b"\x08\x00", b"\x63\x00"), "unpack the archive first"),
        "emptytar": (tarred(tmp_path / "e.tar", {}).read_bytes(), "which is none of"),
        "tar": (tar[:148] + b"99999999" + tar[156:], "a damaged tar archive"),
        "model": (zipped(tmp_path / "m.zip", {"m/data.pkl": b"\x80"}).read_bytes(), "that torch.save wrote"),
    }
    for name, (data, said) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError) as caught:
            import_source(tmp_path / name, "auto")
        assert said in str(caught.value), name
        assert len(caught.value.problems) == 1


def test_a_tar_that_is_cut_is_read_up_to_the_cut(tmp_path: Path) -> None:
    whole = tarred(tmp_path / "w.tar", {"a.txt": TABLE.read_bytes(), "b.txt": bytes(100_000)}).read_bytes()
    (tmp_path / "t.tar").write_bytes(whole[:20_000])
    read = import_source(tmp_path / "t.tar", "auto")
    assert read.summary["ranks"] == 4
    assert any("no known format" in what for what in read.not_read)


def test_a_compressed_tar_that_is_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_files, "_SUSPICIOUS", 1 << 20)
    target = tarred(tmp_path / "t.tar.gz", {"a": bytes(1 << 22)})
    with pytest.raises(InputError, match="unpacks to more than 200 times"):
        import_source(target, "auto")
    monkeypatch.setattr(job_files, "LARGEST_UNPACKED", 1 << 19)
    with pytest.raises(InputError, match="unpacks to more than 524,288 bytes"):
        import_source(target, "auto")


def test_a_tar_with_an_endless_header_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    (tmp_path / "t.tar").write_bytes(info.tobuf() + bytes(1024))
    with pytest.raises(InputError, match="a damaged tar archive: an extended header of 1,073,741,"):
        import_source(tmp_path / "t.tar", "auto")


def test_links_to_folders_are_not_followed_and_pipes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(TABLE.read_text())
    (tmp_path / "circle").symlink_to(tmp_path)
    assert import_source(tmp_path, "auto").files == ["t.txt"]
    with pytest.raises(InputError, match="save it to a file first"):
        import_source(Path("/dev/null"), "auto")


def test_a_thousand_members_are_listed_from_one_directory(tmp_path: Path) -> None:
    files = {f"{place:04d}.json": b"[]" for place in range(1000)}
    with open_job_files(zipped(tmp_path / "t.zip", files)) as job:
        assert [small_bytes(file, 10, "")[0] for file in job.files] == [b"[]"] * 1000


def test_damage_to_an_archive_is_refused_or_read(tmp_path: Path) -> None:
    chance = random.Random(1)
    whole = [zipped(tmp_path / "w.zip", {"t.txt": TABLE.read_bytes(), "u": b"x"}).read_bytes(),
             tarred(tmp_path / "w.tar", {"t.txt": TABLE.read_bytes(), "u": b"x"}).read_bytes()]  # fmt: skip
    for turn in range(300):
        data = bytearray(whole[turn % 2])
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        (tmp_path / "t").write_bytes(data[: chance.choice([len(data), chance.randrange(len(data))])])
        with suppress(InputError):
            import_source(tmp_path / "t", "auto")


def test_names_of_a_jobs_files_are_different(tmp_path: Path) -> None:
    assert names_in_job([tmp_path / "a" / "x.log", tmp_path / "b" / "y.log"]) == ["x.log", "y.log"]
    paths = [tmp_path / "run" / name for name in ("a/x.log", "b/c/x.log", "x.log", "b/y.log")]
    assert names_in_job(paths) == ["a/x.log", "b/c/x.log", "x.log", "b/y.log"]
    archive = tmp_path / "run" / "logs.zip"
    members = [Member(archive, inner, archive, 0) for inner in ("a/x.log", "x.log", "x.log")]
    assert names_in_job([paths[0], *members]) == ["a/x.log", "logs.zip/a/x.log", "logs.zip/x.log", "logs.zip/x.log (2)"]
    assert names_in_job([paths[0], paths[0]]) == ["x.log", "x.log (2)"]


@pytest.mark.parametrize("form", ["kineto", "flight-recorder", "chakra", "nccl-tests"])
def test_files_of_equal_names_in_folders_are_told_apart(form: str, tmp_path: Path) -> None:
    sources = [*SOURCES[form], *SOURCES[form]][:2]
    for rank, source in enumerate(sources):
        (tmp_path / f"rank{rank}").mkdir()
        (tmp_path / f"rank{rank}" / f"t{''.join(source.suffixes)}").write_bytes(source.read_bytes())
    found = import_source(tmp_path, form)
    assert [name.split("/")[0] for name in found.files] == ["rank0", "rank1"]


def test_timelines_of_equal_names_each_have_their_figure(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    for folder, name in (("a", "rank0_cycles"), ("b", "rank0_cycles")):
        data = gzip.decompress(HOROVOD[0].read_bytes())
        (tmp_path / folder / f"{name}.json").write_bytes(data)
    found = import_source(tmp_path, "horovod")
    assert len(found.summary["collective_s_by_file"]) == 2


def test_what_was_not_read_of_files_of_equal_names_is_listed_for_each(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        text = TABLE.read_text() if folder == "a" else "# nThread 1 nGpus 1 minBytes 8\n"
        (tmp_path / folder / "t.log").write_text(text)
    assert set(import_source(tmp_path, "nccl-tests").not_read) >= {"b/t.log", "c/t.log"}
