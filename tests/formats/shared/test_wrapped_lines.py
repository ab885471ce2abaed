"""Lines of a log without what launchers put around them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsim.formats.shared import wrapped_lines
from coordsim.formats.shared.wrapped_lines import Line, WrappedLines, unwrap_lines

ROW = "     1048576        262144     float     sum      -1    138.1    7.59    7.59      0"
DEBUG = "nodea-1:26:26 [1] NCCL INFO cudaDriverVersion 12020"
WARN = "nodea-1:26:26 [0] misc/socket.cc:50 NCCL WARN socketProgress: Connection closed"
COMMENT = "#  Rank  0 Group  0 Pid     25 on nodea device  0 [0x53] NVIDIA H100 80GB HBM3"
GLOO = "Options:     processes=2, inputs=1, threads=1"

PREFIXES = {
    "[1,0]<stdout>:": "rank 0",
    "[1,12]<stderr>: ": "rank 12",
    "[prterun-nodea-12@1,0]<stdout>: ": "rank 0",
    "[1,0][nodea:123]<stdout>: ": "rank 0",
    "[1,mpirank:3,algo-1]<stdout>:": "rank 3",
    "Sat Nov 29 13:08:59 2026<stdout>:": "",
    "Sat Nov 29 13:08:59 2026[1,0]<stdout>:": "rank 0",
    "0: ": "0",
    " 12: ": "12",
    "[0] ": "0",
    "[default3]:": "default3",
    "[rank0]: ": "rank0",
    "2026-11-29T13:08:59.123456789Z ": "",
    "[pod/nccl-x7/main] 2026-11-29T13:08:59.1Z ": "pod/nccl-x7/main",
    "worker-1  | ": "worker-1",
    "algo-1-abc  | [1,0]<stdout>:": "algo-1-abc rank 0",
    "2026-11-29T13:08:59.123456789Z stdout F ": "",
    "(RayTrainWorker pid=123, ip=10.0.0.1) ": "RayTrainWorker pid=123, ip=10.0.0.1",
    "Nov 29 13:08:59 nodea job.sh[12]: ": "nodea job.sh[12]",
    "2026-11-29T13:08:59+0000 nodea job.sh[12]: ": "nodea job.sh[12]",
    "2026-11-29 13:08:59,123 - INFO - ": "",
    "INFO:root:": "",
    "node01: ": "node01",
    "build\tRun tests\t2026-11-29T13:08:59.1234567Z ": "",
    "\x1b[0m\x1b[1;31m0: \x1b[0m": "0",
    "1700000000.123 ": "",
    " 10%|##   | 1/10\r 20%|###  | 2/10\r": "",
    "\ufeff": "",
}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("text", [ROW, DEBUG, WARN, COMMENT, GLOO])
def test_a_prefix_is_taken_off_and_names_the_writer(prefix: str, text: str) -> None:
    *_, line = unwrap_lines([f"{prefix}{text}\r"])
    assert (line.text.strip(), line.writer) == (text.strip(), PREFIXES[prefix])


@pytest.mark.parametrize("text", ["", "#", ROW, DEBUG, WARN, COMMENT, GLOO, "Algorithm:   allreduce_ring", "a b | c d"])
def test_a_line_without_prefix_stays_as_it_is(text: str) -> None:
    assert list(unwrap_lines([text])) == [Line(1, text, "")]


def test_a_tag_in_the_middle_joins_the_pieces_of_one_rank() -> None:
    log = ["[1,0]<stdout>:  8  2[1,0]<stdout>:  4.5[1,1]<stdout>:hello", "[1,0]<stdout>:  6.5", "[1,1]<stdout>:x"]
    lines = [(line.number, line.text.split(), line.writer) for line in unwrap_lines(log)]
    assert lines == [(1, ["hello"], "rank 1"), (2, ["8", "2", "4.5", "6.5"], "rank 0"), (3, ["x"], "rank 1")]


def test_a_space_behind_every_tag_belongs_to_the_tag() -> None:
    log = ["[1,0]<stdout>: # x", "[1,0]<stdout>: 10[1,0]<stdout>: 24[1,0]<stdout>:  4", "[1,0]<stdout>: "]
    assert [line.text for line in unwrap_lines(log)] == ["# x", "1024 4", ""]


def test_what_stderr_printed_is_no_piece_of_stdout() -> None:
    log = ["[1,0]<stdout>:8 2[1,0]<stderr>:warning", "[1,0]<stdout>: 4"]
    assert [line.text for line in unwrap_lines(log)] == ["warning", "8 2 4"]


def test_a_debug_line_in_the_middle_is_a_line_of_its_own() -> None:
    for prefix in ("", "[1,0]<stdout>:", "0: ", "worker-1  | "):
        log = [f"{prefix}{DEBUG}", f"{prefix}  8  2  sum{DEBUG}", f"{prefix}{WARN}", f"{prefix}  4.5", f"{prefix}16"]
        texts = [line.text.strip() for line in unwrap_lines(log)]
        assert texts == [DEBUG, DEBUG, WARN, "8  2  sum  4.5", "16"]


def test_a_line_that_is_never_ended_is_not_lost() -> None:
    assert [line.text for line in unwrap_lines(["[1,0]<stdout>:8 2[1,1]<stdout>:x"])] == ["x", "8 2"]


def test_files_of_any_encoding_and_length_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrapped_lines, "LONGEST_LINE", 1000)
    path = tmp_path / "t"
    for data in (b"a\nb\xff\n", "\ufeffa\r\nb\ufffd\r\n".encode("utf-16-le"), gzip.compress(b"a\nb\xff\n")):
        path.write_bytes(data)
        lines = WrappedLines(path)
        assert [line.text for line in lines] == ["a", "b\ufffd"]
        assert (lines.lost, lines.ended) == (None, True)
    path.write_bytes(b"x" * (1 << 20) + b"\nlast")
    lines = WrappedLines(path)
    assert [len(line.text) for line in lines] == [1000, 4]
    assert not lines.ended


def test_a_cut_in_the_compression_is_said(tmp_path: Path) -> None:
    path = tmp_path / "t.gz"
    path.write_bytes(gzip.compress(b"".join(b"%d\n" % number for number in range(9999)))[:5000])
    lines = WrappedLines(path)
    assert [line.text for line in lines][:2] == ["0", "1"]
    assert lines.lost == "the compressed file is cut off"


@given(st.lists(st.text(st.sampled_from("[]1,0<stdou>: \r\x1b|ab#2026-T:NCCL INFO\t."), max_size=60), max_size=8))
def test_any_text_is_unwrapped_and_nothing_but_prefixes_is_lost(log: list[str]) -> None:
    for line in unwrap_lines(log):
        assert "\r" not in line.text
        assert "\n" not in line.text


@pytest.mark.parametrize("text", [" " * 200_000, "a" * 200_000, "[" * 200_000, "<std" * 50_000, "NCCL a" * 30_000])
def test_a_hostile_line_is_passed_quickly(text: str, tmp_path: Path) -> None:
    assert [line.number for line in unwrap_lines([text] * 5)] == [1, 2, 3, 4, 5]


HOSTS = [
    "1eb576079025", "0123456789ab", "123456789012", "10.0.0.12", "ip-10-0-0-12.ec2.internal", "3com-gpu1", "8a",
    "node_7", "gpu-node.cluster-2.example.com", "worker-0", "nodea", "7",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_a_debug_line_of_any_host_leaves_the_other_lines_alone(host: str) -> None:
    debug = f"{host}:4911:5068 [0] NCCL INFO Bootstrap: Using eth0"
    assert [line.text for line in unwrap_lines([debug, "loss 3", f"  8  2  0.5{debug}", "  4"])] == [
        debug, "loss 3", debug, "  8  2  0.5  4",
    ]  # fmt: skip
    stamped = f"2026-11-29 13:08:59 {debug}"
    assert [line.text for line in unwrap_lines([f"x {stamped}", "loss 3"])][1] == "x loss 3"


@pytest.mark.parametrize("host", ["1eb576079025", "10.0.0.12", "nodea", "gpu-node.example.com"])
def test_a_number_before_a_host_that_was_not_seen_before_is_the_interrupted_line(host: str) -> None:
    debug = f"{host}:4911:5068 [0] NCCL INFO Bootstrap: Using eth0"
    assert [line.text for line in unwrap_lines([f"loss 3.52{debug}", " step 7"])] == [debug, "loss 3.52 step 7"]


def test_the_first_number_of_an_interrupted_row_is_no_part_of_a_host() -> None:
    debug = "nodea:26:26 [1] NCCL INFO Using network IB"
    assert [line.text for line in unwrap_lines([f"        8{debug}", "  2  float"])] == [debug, "        8  2  float"]


def test_a_host_whose_name_ends_like_another_is_not_cut() -> None:
    debug = [f"{host}:1:2 [0] NCCL INFO Bootstrap" for host in ("worker-1", "my-worker-1", "a.worker-1")]
    assert [line.text for line in unwrap_lines([*debug, "loss 3"])] == [*debug, "loss 3"]


@pytest.mark.parametrize("host", ["10.0.0.12", "1eb576079025"])
def test_pdsh_names_hosts_by_address_or_container(host: str) -> None:
    assert list(unwrap_lines([f"{host}: {ROW}"])) == [Line(1, ROW, host)]
