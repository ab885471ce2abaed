"""Logs of NCCL_DEBUG=INFO: initialisation by rank, calls, what differs; nobody is accused by a torn line."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordsim.errors import InputError
from coordsim.formats.imported import Imported
from coordsim.formats.nccl_debug import import_logs
from coordsim.formats.table import format_of
from tests.budget import examples

DATA = Path(__file__).parents[2] / "data" / "nccl_debug"
TIMINGS, CALLS = DATA / "init_timings_2.23.log", DATA / "calls_mpirun.log"


def read(path: Path) -> Imported:
    return import_logs([path])


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_initialisation_by_rank_and_phase() -> None:
    found = read(TIMINGS).summary
    totals = [1.21, *(0.69 + 4.03 + rank / 100 for rank in (0, 1, 2, 4, 5, 6, 7))]
    assert found["init_median_s"] == pytest.approx(sum(sorted(totals)[3:5]) / 2)
    assert found["init_slowest"] == "rank 7 (node02): 4.79 s, of that bootstrap 4.10 s (median 4.06 s)"
    assert found["init_phases_median_s"]["kernels"] == 0.3
    assert list(found["init_phases_median_s"]) == [
        "kernels", "alloc", "bootstrap", "allgathers", "topo", "graphs", "connections", "rest",
    ]  # fmt: skip
    by_rank = {label: total for _, label, total, _ in found["init_by_rank"]}
    assert len(by_rank) == 8
    assert by_rank["rank 3 (node01)"] == 1.21


def test_the_rank_that_the_others_wait_for_in_bootstrap() -> None:
    found = read(TIMINGS)
    assert found.summary["init_waited_for"] == (
        "rank 3 (node01): 0.02 s in bootstrap, where the others spent 4.07 s (median)"
    )
    assert "init waits" in found.unknown


def test_ranks_hosts_network_and_channels() -> None:
    found = read(TIMINGS).summary
    assert found["version"] == "NCCL 2.23.4+cuda12.4"
    assert (found["processes"], found["hosts"], found["nodes"], found["ranks"]) == (8, 2, 2, 8)
    assert (found["network"], found["channels"], found["rings"]) == ("IB", 16, 16)
    assert found["connections"] == {"P2P/CUMEM": 6, "NET/IB/GDRDMA": 2}
    (row,) = found["communicators_table"]
    assert (row["id"], row["seen"], row["initialised"]) == ("0x56bea185a98d5193", 8, 8)


@pytest.mark.parametrize(
    "line",
    [
        "h:1:2 [0] NCCL INFO Init timings: rank 0 nranks 1 total 0.17 (kernels 0.12, bootstrap 0.03, allgathers 0.00, "
        "topo 0.00, graphs 0.00, connections 0.02, rest 0.00)",
        "[2026-05-05 06:16:47] h:1:2 [0] NCCL INFO Init timings - ncclCommSplit: rank 0 nranks 1 total 0.17 "
        "(kernels 0.12, alloc 0.01, bootstrap 0.02, allgathers 0.00, topo 0.00, graphs 0.00, connections 0.02, "
        "rest 0.00)",
        "(RayWorker pid=7) h:1:2 [0] init.cc:1492 NCCL INFO Init timings - ncclCommGrow: rank 0 nranks 1 total 0.17 "
        "(kernels 0.12, alloc 0.05, bootstrap 0.00, rest 0.00)",
        "NCCL INFO Init timings: rank 0 nranks 1 total 0.17 (kernels 0.12, bootstrap 0.05, rest 0.00)",
    ],
)  # fmt: skip
def test_every_wording_of_the_timings(tmp_path: Path, line: str) -> None:
    found = read(written(tmp_path / "t.log", line + "\n")).summary
    assert found["init_median_s"] == 0.17
    assert found["init_phases_median_s"]["kernels"] == 0.12


def test_calls_give_counts_sizes_and_the_repeated_messages() -> None:
    found = read(CALLS)
    assert found.summary["calls"] == 4 * 12 - 3
    assert found.summary["kinds"] == {"AllReduce": 45}
    assert {row["bytes"]: row["lines"] for row in found.summary["calls_table"]} == {
        1 << 20: 15, 4 << 20: 15, 1 << 19: 15,
    }  # fmt: skip
    assert found.summary["pattern_bytes"] == [1 << 20, 4 << 20, 1 << 19]
    assert found.workload_csv is not None
    assert "0x1ce724326e09a7e5" not in found.workload_csv


def test_a_rank_that_is_behind_is_told_with_its_last_call() -> None:
    found = read(CALLS)
    assert found.summary["behind"] == [
        "rank 2 of 0x1ce724326e09a7e5: 9 collectives, the last opCount 8, AllReduce of 524,288 B (float32); "
        "rank 0, rank 1, rank 3 made 12"
    ]
    assert found.summary["differ"] == []
    assert "cut while the job ran" in found.unknown["behind"]


def test_a_call_that_differs_is_told_with_all_forms() -> None:
    found = read(DATA / "mismatch_srun.log").summary
    assert found["differ"] == [
        "collective 3 (opCount 2) of 0xabc123: AllReduce of 8,192 B (bfloat16) on rank 0, rank 2; "
        "AllReduce of 4,096 B (bfloat16) on rank 1"
    ]
    assert found["behind"] == []


def test_rccl_and_a_reduce_scatter_of_all_ranks_parts() -> None:
    found = read(DATA / "rccl_fsdp.log").summary
    assert found["version"] == "RCCL 2.18.3+hip6.0"
    assert found["kinds"] == {"AllGather": 6, "ReduceScatter": 6}
    assert found["pattern_bytes"] == [2 * 65536 * 2]
    assert (found["behind"], found["differ"], found["compared"]) == ([], [], 1)


def test_an_old_version_has_no_ids_and_no_timings() -> None:
    found = read(DATA / "nccl_2.4.log")
    assert found.summary["version"] == "NCCL 2.4.8+cuda10.1"
    assert (found.summary["network"], found.summary["communicators"], found.summary["ranks"]) == ("Socket", 1, 2)
    assert found.unknown["init times"].startswith("no line 'Init timings' is in it: NCCL writes it since 2.22")
    assert "init_median_s" not in found.summary


def test_a_rank_that_never_arrived() -> None:
    assert read(DATA / "never_arrived.log").summary["not_initialised"] == [
        "rank 0, rank 1, rank 3 of 0xfeed: Init START without Init COMPLETE, as on all of its ranks; no line of rank 2"
    ]


def test_missing_ends_accuse_nobody_where_another_rank_ended(tmp_path: Path) -> None:
    lines = TIMINGS.read_text().splitlines()
    kept = [line for line in lines if not (" rank 6 " in line and ("COMPLETE" in line or "timings" in line))]
    found = read(written(tmp_path / "lost.log", "\n".join(kept)))
    assert "not_initialised" not in found.summary
    assert "lines are missing" in found.unknown["init ends"]


def test_torn_lines_keep_totals_and_lose_phases() -> None:
    found = read(DATA / "torn.log")
    rows = {label: (total, phases) for _, label, total, phases in found.summary["init_by_rank"]}
    assert {label: total for label, (total, _) in rows.items()} == {
        "rank 0": 3.82, "rank 1": 3.82, "rank 2": 3.82, "rank 3": 3.84,
    }  # fmt: skip
    assert rows["rank 0"][1] == rows["rank 1"][1] == {}
    assert rows["rank 2"][1]["bootstrap"] == 0.15
    assert found.unknown["phases"] == "of 2 ranks the phases are torn off by other processes' lines"
    assert found.summary["communicators_table"][0]["initialised"] == 4


def test_torn_calls_accuse_nobody(tmp_path: Path) -> None:
    lines = (DATA / "mismatch_srun.log").read_text().splitlines()
    lines[8] = lines[8][:90] + lines[9]
    del lines[9]
    found = read(written(tmp_path / "torn.log", "\n".join(lines)))
    assert "differ" not in found.summary
    assert "torn" in found.unknown["differences"]


def test_op_counts_that_only_some_ranks_count_accuse_nobody(tmp_path: Path) -> None:
    """Since 2.27 a rank without network traffic of its own leaves opCount at 0."""
    lines = (DATA / "rccl_fsdp.log").read_text().splitlines()
    lines = [re.sub("opCount [0-9a-f]+ ", "opCount 0 ", line) if "globalrank 1" in line else line for line in lines]
    found = read(written(tmp_path / "one_node.log", "\n".join(lines))).summary
    assert (found["behind"], found["differ"], found["compared"]) == ([], [], 1)


def test_lines_that_a_log_lost_accuse_nobody(tmp_path: Path) -> None:
    lines = (DATA / "rccl_fsdp.log").read_text().splitlines()
    del lines[7]
    found = read(written(tmp_path / "lost.log", "\n".join(lines)))
    assert "behind" not in found.summary
    assert "jumps from 1 to 3" in found.unknown["differences"]


def test_sends_are_not_held_against_ranks_that_make_none(tmp_path: Path) -> None:
    lines = (DATA / "rccl_fsdp.log").read_text().splitlines()
    send = lines[5].replace("ReduceScatter", "Send").replace("AllGather", "Send")
    found = read(written(tmp_path / "p2p.log", "\n".join([*lines[:6], send, *lines[6:]])))
    assert (found.summary["behind"], found.summary["differ"]) == ([], [])
    assert found.summary["kinds"]["Send"] == 1


def test_calls_without_init_lines_are_compared_where_all_ranks_are_there(tmp_path: Path) -> None:
    lines = [line for line in CALLS.read_text().splitlines() if "opCount" in line]
    found = read(written(tmp_path / "coll.log", "\n".join(lines)))
    assert found.summary["kinds"] == {"AllReduce": 45}
    assert found.summary["behind"][0].startswith("node01 pid 3002 of the only communicator of 4 ranks: 9 collectives")
    assert found.summary["pattern_bytes"] == [1 << 20, 4 << 20, 1 << 19]


@pytest.mark.parametrize("lost", ["[1,3]<stdout>", "opCount 0 "])
def test_calls_of_some_ranks_alone_accuse_nobody(tmp_path: Path, lost: str) -> None:
    lines = [line for line in CALLS.read_text().splitlines() if "opCount" in line and lost not in line]
    found = read(written(tmp_path / "coll.log", "\n".join(lines)))
    assert "behind" not in found.summary
    assert "NCCL_DEBUG_SUBSYS=INIT,COLL" in found.unknown["differences"] or "begin" in found.unknown["differences"]


def test_splits_of_one_parent_are_told_apart_by_colour(tmp_path: Path) -> None:
    lines = []
    for rank in range(4):
        front = f"n:{10 + rank}:{10 + rank} [{rank}] NCCL INFO "
        lines += [
            f"{front}ncclCommInitRank comm 0xa{rank} rank {rank} nranks 4 cudaDev {rank} nvmlDev {rank} busId 1 "
            "commId 0x77 - Init COMPLETE",
            f"{front}ncclCommSplit comm 0xb{rank} rank {rank // 2} nranks 2 cudaDev {rank} nvmlDev {rank} busId 1 "
            f"parent 0xa{rank} splitCount 1 color {rank % 2} key {rank} - Init COMPLETE",
            f"{front}AllReduce: opCount 0 sendbuff 0x1 recvbuff 0x1 count {64 * (1 + rank % 2)} datatype 7 op 0 root 0 "
            f"comm 0xb{rank} [nranks=2] stream 0x5",
        ]
    found = read(written(tmp_path / "split.log", "\n".join(lines))).summary
    assert (found["communicators"], found["compared"], found["differ"], found["behind"]) == (3, 2, [], [])


@pytest.mark.parametrize(
    "wrap",
    [
        "[1,0]<stdout>:{}",
        "3: {}",
        "trainer-0  | {}",
        "2026-01-01T00:00:00.000000000Z {}",
        "2026-01-01T00:00:00.000000000Z stdout F {}",
        "[pod/x/trainer] {}",
        "(Worker pid=12, ip=10.0.0.1) {}",
        "\x1b[36m{}\x1b[0m",
        "[rank3]: {}",
    ],
)
def test_prefixes_change_nothing(tmp_path: Path, wrap: str) -> None:
    plain = read(TIMINGS)
    text = "\n".join(wrap.format(line) for line in TIMINGS.read_text().splitlines()) + "\n"
    path = written(tmp_path / "wrapped.log", text)
    assert format_of(path).name == "nccl-debug"
    assert read(path).summary == plain.summary


def test_docker_s_json_lines(tmp_path: Path) -> None:
    wrapped = [
        json.dumps({"log": line + "\n", "stream": "stdout", "time": "2026-01-01T00:00:00Z"}, separators=(",", ":"))
        for line in TIMINGS.read_text().splitlines()
    ]
    path = written(tmp_path / "c-json.log", "\n".join(wrapped) + "\n")
    assert format_of(path).name == "nccl-debug"
    assert read(path).summary == read(TIMINGS).summary


def test_hosts_named_by_a_number_first(tmp_path: Path) -> None:
    text = TIMINGS.read_text().replace("node01:", "1eb576079025:").replace("node02:", "2e194b931ff6:")
    assert read(written(tmp_path / "docker.log", text)).summary["hosts"] == 2


def test_a_file_of_each_process(tmp_path: Path) -> None:
    by_process: dict[str, list[str]] = {}
    for line in TIMINGS.read_text().splitlines():
        by_process.setdefault(line.split(":")[1], []).append(line)
    paths = [written(tmp_path / f"{pid}.log", "\n".join(lines) + "\n") for pid, lines in sorted(by_process.items())]
    assert import_logs(paths).summary["init_slowest"] == read(TIMINGS).summary["init_slowest"]


def test_gzip_utf16_and_cut_files(tmp_path: Path) -> None:
    packed = tmp_path / "t.log.gz"
    packed.write_bytes(gzip.compress(TIMINGS.read_bytes()))
    assert read(packed).summary == read(TIMINGS).summary
    (tmp_path / "t.txt").write_bytes(TIMINGS.read_text().encode("utf-16"))
    assert read(tmp_path / "t.txt").summary == read(TIMINGS).summary
    packed.write_bytes(gzip.compress(TIMINGS.read_bytes())[:-300])
    assert "cut off" in read(packed).unknown["cut"]


def test_warnings_are_counted(tmp_path: Path) -> None:
    text = "h:1:1 [0] misc/ibvwrap.cc:63 (wrap_ibv) NCCL WARN Failed to open libibverbs.so[.1]\n" * 3
    found = read(written(tmp_path / "w.log", text)).summary
    assert found["warnings"] == ["Failed to open libibverbs.so[.1] (3 times)"]


def test_a_table_of_nccl_tests_wins(tmp_path: Path) -> None:
    table = (DATA.parent / "nccl_tests" / "all_reduce_2nodes.txt").read_text()
    lines = table.splitlines()
    path = written(tmp_path / "both.log", "\n".join([lines[0], *TIMINGS.read_text().splitlines(), *lines[1:]]) + "\n")
    assert format_of(path).name == "nccl-tests"
    told = read(path)
    assert told.summary["init_median_s"] == read(TIMINGS).summary["init_median_s"]
    assert "--format nccl-tests" in told.unknown["table"]


@pytest.mark.parametrize("text", ["", "loss 3.2\n", "NCCL is mentioned\n", "x" * 1_000_000])
def test_a_log_without_nccl_is_one_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="has no line of NCCL; expected a log of NCCL"):
        read(written(tmp_path / "x.log", text))


def test_absurd_numbers_are_no_calls(tmp_path: Path) -> None:
    lines = CALLS.read_text().splitlines()
    lines.append(lines[-1].replace("count 131072", f"count {'9' * 5000}"))
    lines.append(lines[-2].replace("nranks=4", f"nranks={'9' * 400}"))
    found = read(written(tmp_path / "absurd.log", "\n".join(lines))).summary
    assert found["kinds"] == {"AllReduce": 45}


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, 1500), st.binary(max_size=8)), max_size=8), name=st.sampled_from(
    ["torn.log", "mismatch_srun.log", "rccl_fsdp.log", "calls_mpirun.log"]))  # fmt: skip
def test_damage_is_a_result(tmp_path: Path, edits: list[tuple[int, bytes]], name: str) -> None:
    data = bytearray((DATA / name).read_bytes())
    for at, piece in edits:
        data[at : at + len(piece)] = piece
    path = tmp_path / "damaged.log"
    path.write_bytes(data)
    assert read(path).summary["messages"] > 0


def test_of_ranks_that_took_equally_long_none_is_the_slowest(tmp_path: Path) -> None:
    phases = (
        "(kernels 0.10, alloc 0.01, bootstrap 2.70, allgathers 0.00, topo 0.05, graphs 0.01, connections 0.02, "
        "rest 0.11)"
    )
    timings = "NCCL INFO Init timings - ncclCommInitRank"
    lines = [
        f"n0:{rank}:9 [{rank}] {timings}: rank {rank} nranks 3 total 3.0{rank % 2} {phases}" for rank in range(3)
    ]
    path = tmp_path / "equal.log"
    path.write_text("\n".join(lines))
    assert read(path).summary["init_slowest"].startswith("all alike: 3.0")
