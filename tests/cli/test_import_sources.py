"""``coordsim import``: archives, folders of several kinds, ``--format`` and ``--table``."""

from __future__ import annotations

import gzip
import json
import re
import tomllib
import zipfile
from pathlib import Path

import pytest

from coordsim.formats.table import FORMATS, SOURCES, Head, format_of

DATA = Path(__file__).parents[1] / "data"
TABLE = DATA / "nccl_tests" / "all_reduce_2nodes.txt"
OF = {
    "horovod": DATA / "horovod_runs" / "tl_gloo_n4_cache.timeline.json.gz",
    "kineto": DATA / "torch_traces" / "kineto_rank0.json.gz",
    "chakra": DATA / "torch_traces" / "chakra_rank0.json.gz",
    "flight-recorder": DATA / "torch_traces" / "flight_rank0.pickle",
    "nccl-tests": TABLE,
    "gloo-benchmark": DATA / "gloo_benchmark" / "allreduce_ring_chunked_4.txt",
}


@pytest.mark.parametrize("form", OF)
@pytest.mark.parametrize("other", OF)
def test_a_format_that_is_not_the_files_says_what_was_looked_for_and_what_stood_there(form, other, run):
    result = run("import", str(OF[other]), "--format", form)
    if form == other:
        assert result.exit_code == 0
        return
    assert result.exit_code == 2
    signs = next(source.signs for source in SOURCES if source.name == form)
    assert f"expected {signs}; the file begins with " in result.stderr
    assert f", which looks like {other}" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("form", sorted(set(FORMATS) & set(OF)))
def test_a_format_for_a_file_of_no_known_kind_says_what_stood_there(form, run, tmp_path):
    (tmp_path / "t").write_text("hello, world\n")
    result = run("import", str(tmp_path / "t"), "--format", form)
    assert result.exit_code == 2
    assert "the file begins with 'hello, world'" in result.stderr
    (tmp_path / "t").write_text("")
    assert "the file is empty" in run("import", str(tmp_path / "t"), "--format", form).stderr


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"# OSU MPI Allreduce Latency Test v7.3\n# Size\n8  1.2\n", "a table of the OSU micro-benchmarks"),
        (b"#  Intel(R) MPI Benchmarks 2021.3, MPI-1 part\n", "a table of the Intel MPI benchmarks"),
        (b"#bytes #repetitions t_min[usec]\n", "oneCCL's or Intel's MPI benchmark"),
        (b"\x28\xb5\x2f\xfdxxxx", "compressed by zstd; unpack it first"),
        (b"\xfd7zXZ\0xxxx", "compressed by xz; unpack it first"),
        (b"SQLite format 3\0xxxx", "an SQLite database"),
    ],
)
def test_formats_that_are_not_read_are_named(data, said, run, tmp_path):
    (tmp_path / "t").write_bytes(data)
    result = run("import", str(tmp_path / "t"))
    assert result.exit_code == 2
    assert said in result.stderr


def test_what_was_not_read_is_on_the_screen_and_in_the_json(run, tmp_path):
    with zipfile.ZipFile(tmp_path / "job.zip", "w") as archive:
        archive.writestr("logs/all_reduce.txt", TABLE.read_text())
        archive.writestr("job.sh", "#!/bin/sh\n")
    assert "files of no known format (job.sh): 1" in run("import", str(tmp_path / "job.zip")).stdout
    found = json.loads(run("import", str(tmp_path / "job.zip"), "--json").stdout)
    assert found["not_read"] == {"files of no known format (job.sh)": 1}
    assert found["files"] == ["all_reduce.txt"]


def test_one_of_several_tables_is_chosen_by_its_number(run, tmp_path):
    text = TABLE.read_text()
    faster = text.replace("13.60   20.40", "26.66   39.99")
    (tmp_path / "t.txt").write_text(text + text.replace("float     sum", "float    none") + faster)
    result = run("import", str(tmp_path / "t.txt"))
    assert "3 tables" in result.stdout
    assert "  2  unknown collective, 4 ranks, 8 B to 128 MiB" in result.stdout
    assert "--out cluster.toml --table 1" in result.stderr
    out = tmp_path / "c.toml"
    refused = run("import", str(tmp_path / "t.txt"), "--out", str(out))
    assert refused.exit_code == 2
    assert "2 tables give figures of a cluster; choose one with --table N (1: all_reduce, 4 ranks" in refused.stderr
    refused = run("import", str(tmp_path / "t.txt"), "--out", str(out), "--table", "2")
    assert "table 2 gives no figures" in refused.stderr
    assert run("import", str(tmp_path / "t.txt"), "--out", str(out), "--table", "3").exit_code == 0
    assert tomllib.loads(out.read_text()) == {"ranks": 4, "cluster": {"data": {"bus_bandwidth": "39990000000B/s"}}}
    assert run("simulate", str(out), "--cluster", "summit", "--workload", "resnet50", "--steps", "2").exit_code == 0
    assert run("import", str(tmp_path / "t.txt"), "--table", "3").exit_code == 2


def test_a_folder_of_hundreds_of_logs_is_read(run, tmp_path):
    for number in range(300):
        folder = tmp_path / f"node{number % 10}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.log").write_text(TABLE.read_text() if number % 3 else "Job failed: no GPU\n")
    found = json.loads(run("import", str(tmp_path), "--json").stdout)
    assert len(found["found"]["tables"]) == 200
    assert found["not_read"] == {"files of no known format (0.log, 120.log, 150.log and 97 more)": 100}


OTHER_OUTPUT = "".join(f"epoch 0 step {step} loss 3.{step}\n" for step in range(9_000))
NCCL_LINES = (
    "1eb576079025:41:52 [0] NCCL INFO Bootstrap : Using eth0:10.0.0.2<0>\n"
    "1eb576079025:41:52 [0] NCCL INFO comm 0x7f00 rank 0 nranks 2 cudaDev 0 busId 1000 commId 0x1 - Init COMPLETE\n"
)


@pytest.mark.parametrize("before", ["", OTHER_OUTPUT])
@pytest.mark.parametrize(
    ("behind", "form"),
    [
        (NCCL_LINES, "nccl-debug"),
        (NCCL_LINES + OTHER_OUTPUT + TABLE.read_text(), "nccl-tests"),
        (TABLE.read_text() + OTHER_OUTPUT + NCCL_LINES, "nccl-tests"),
        (NCCL_LINES + OTHER_OUTPUT + OF["gloo-benchmark"].read_text(), "gloo-benchmark"),
    ],
)
def test_a_log_is_recognised_wherever_its_lines_stand_and_a_table_wins(before, behind, form, tmp_path):
    assert len(OTHER_OUTPUT) > 1 << 17
    path = tmp_path / "job.log"
    path.write_text(before + behind)
    assert format_of(path).name == form


def test_what_a_format_recognises_in_a_log_holds_one_of_its_words():
    """A format is looked for further on only where one of its words stands."""
    samples = {"nccl-tests": TABLE.read_text(), "gloo-benchmark": OF["gloo-benchmark"].read_text(),
               "nccl-debug": NCCL_LINES}  # fmt: skip
    assert {source.name for source in SOURCES if source.words} == set(samples)
    for source in SOURCES:
        for line in samples.get(source.name, "").splitlines() if source.words else ():
            if source.recognises(Head("t", line.encode(), line)):
                assert any(word in line for word in source.words), line


@pytest.mark.parametrize("name", ["job.0.et", "job.0.et.gz", "job.0.eg", "job.0.eg.gz"])
def test_chakra_is_recognised_by_the_names_that_its_tools_give(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"\x0a\x05hello")
    assert format_of(path).name == "chakra"


def test_chakra_is_recognised_by_a_workload_graph(run, tmp_path):
    path = tmp_path / "workload.json"
    nodes = [{"Id": 0, "Name": "all_reduce", "NodeType": 4, "CommType": "ALLREDUCE", "Size": 64, "Data_Deps": []}]
    path.write_text(json.dumps({"workload_name": "w", "workload_graph": nodes}))
    assert format_of(path).name == "chakra"
    assert json.loads(run("import", str(path), "--json").stdout)["format"] == "chakra"


EVIL = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31mname"


def _evil_table(folder):
    text = re.sub(r"(\] ).*", rf"\g<1>{EVIL[-8:]}", TABLE.read_text())
    (folder / "t.txt").write_text(text)
    return folder / "t.txt"


def _evil_timeline(folder):
    data = gzip.decompress(OF["horovod"].read_bytes()).decode()
    (folder / "t.json").write_text(data.replace("barrier", json.dumps(EVIL)[1:-1]))
    return folder / "t.json"


def _evil_trace(folder):
    trace = json.loads(gzip.decompress(OF["kineto"].read_bytes()))
    trace["distributedInfo"]["backend"] = EVIL
    trace["host_name"] = EVIL
    for event in trace["traceEvents"]:
        if event.get("name", "").startswith("c10d::"):
            event["name"] = f"c10d::{EVIL}_"
    (folder / "t.json").write_text(json.dumps(trace))
    return folder / "t.json"


def _evil_execution(folder):
    trace = json.loads(gzip.decompress(OF["chakra"].read_bytes()))
    trace["schema"] = EVIL
    for node in trace["nodes"]:
        if node["name"].startswith("c10d::"):
            node["name"] = f"c10d::{EVIL}_"
    (folder / "t.json").write_text(json.dumps(trace))
    return folder / "t.json"


def _evil_log(folder):
    (folder / "t.log").write_text(f"h:1:2 [0] NCCL INFO Using network {EVIL}\nh:1:2 [0] a.cc:1 NCCL WARN {EVIL}\n")
    return folder / "t.log"


def _evil_names(folder):
    (folder / f"{EVIL}.txt").write_text(TABLE.read_text())
    (folder / f"{EVIL}.x").write_text("no recording")
    return folder


@pytest.mark.parametrize(
    "make", [_evil_table, _evil_timeline, _evil_trace, _evil_execution, _evil_log, _evil_names]
)
def test_nothing_from_a_file_steers_the_terminal(make, run, tmp_path):
    source = tmp_path / "s"
    source.mkdir()
    path = make(source)
    screens = [run("import", str(path)), run("import", str(path), "--format", "gloo-benchmark")]
    assert re.search(r"\\x9b|\\x1b", screens[0].stdout), "the name is not on the screen"
    assert screens[0].exit_code == 0, screens[0].stderr
    if "gives" in screens[0].stdout and run("import", str(path), "--out", str(tmp_path / "run")).exit_code == 0:
        screens.append(run("report", str(tmp_path / "run")))
        assert screens[-1].exit_code == 0
    for screen in screens:
        for text in (screen.stdout, screen.stderr):
            assert "".join(text.split("\n")).isprintable(), repr(text)


def test_the_json_of_an_import_keeps_names_as_they_stand(run, tmp_path):
    found = json.loads(run("import", str(_evil_execution(tmp_path)), "--json").stdout)
    assert found["found"]["schema"] == EVIL[:40]
