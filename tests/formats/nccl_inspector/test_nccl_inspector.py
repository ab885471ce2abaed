"""Records of NCCL Inspector: every version's keys, matching across ranks, and what is not told."""

from __future__ import annotations

import gzip
import json
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordsim.errors import InputError
from coordsim.formats.imported import Imported
from coordsim.formats.nccl_inspector import import_dumps
from coordsim.formats.table import format_of
from tests.budget import examples

DATA = Path(__file__).parents[2] / "data" / "nccl_inspector"
RELEASE = sorted((DATA / "release").iterdir())
VERBOSE = sorted((DATA / "verbose").iterdir())


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def written(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def row_of(found: Imported, nbytes: int, collective: str = "AllReduce") -> dict[str, Any]:
    rows = found.summary["collectives_table"]
    return next(row for row in rows if row["bytes"] == nbytes and row["collective"] == collective)


def test_calls_sizes_and_durations_of_a_release() -> None:
    found = import_dumps(RELEASE)
    assert (found.summary["version"], found.summary["ranks"], found.summary["hosts"]) == ("v4.0", 4, 2)
    assert found.summary["operations"] == {"AllReduce": 4 * 12 * 3}
    row = row_of(found, 24 << 20)
    assert (row["calls"], row["records"]) == (12, 48)
    times = sorted(
        each["coll_perf"]["coll_exec_time_us"]
        for path in RELEASE for each in lines_of(path) if each["coll_perf"]["coll_msg_size_bytes"] == 24 << 20
    )  # fmt: skip
    assert row["median_s"] == pytest.approx((times[23] + times[24]) / 2 / 1e6)
    assert row["bus_Bps"] == pytest.approx(1.5 * (24 << 20) / row["median_s"])


def test_the_rank_that_comes_last_has_the_shortest_times() -> None:
    found = import_dumps(RELEASE)
    (late,) = found.summary["waited_for"]
    assert late.startswith("rank 2 of communicator 0 (node02, pid 4002): last in 12 of 12 calls at which anybody waits")
    assert "(36 in all), 3 ms behind" in late
    assert found.summary["arrivals_from"].startswith("durations")
    (arrivals,) = found.summary["arrivals_table"]
    assert (arrivals["calls"], arrivals["calls_with_wait"]) == (36, 12)
    assert arrivals["sum_s"] == pytest.approx(0.036)
    # the wait is not the collective's: its own time is that of the last rank
    first = row_of(found, 8 << 20)
    assert first["median_s"] == pytest.approx(3.4e-3, rel=0.01)
    assert first["last_rank_median_s"] == pytest.approx(0.4e-3, rel=0.05)


def test_verbose_dumps_of_one_host_tell_starts() -> None:
    found = import_dumps(VERBOSE)
    assert found.summary["arrivals_from"] == "starts of kernels by one host's clock"
    (late,) = found.summary["waited_for"]
    assert late.startswith("rank 1 of communicator 0 (node01, pid 5001): last in 8 of 8 calls")
    assert "20 ms behind" in late
    assert "clocks" not in found.unknown


def test_clocks_of_two_hosts_are_aligned_by_the_ends(tmp_path: Path) -> None:
    other = lines_of(VERBOSE[1])
    for record in other:
        record["metadata"]["hostname"] = "node02"
        stamps = record["coll_perf"]["event_trace_ts"]
        for event in stamps["kernel_events"]:
            for key in ("kernel_start_ts", "kernel_stop_ts", "kernel_record_ts"):
                event[key] -= 3_000_000
    found = import_dumps([VERBOSE[0], written(tmp_path / "node02.log", other)])
    assert "2 hosts, aligned by the ends" in found.summary["arrivals_from"]
    assert "rank 1" in found.summary["waited_for"][0]
    assert "20 ms behind" in found.summary["waited_for"][0]
    assert "clocks" in found.unknown


def test_nobody_is_named_where_ranks_come_last_in_turns(tmp_path: Path) -> None:
    paths = []
    for rank in range(2):
        records = lines_of(RELEASE[rank])
        for record in records:
            record["header"] |= {"n_ranks": 2, "nnodes": 1}
            record["coll_perf"]["coll_exec_time_us"] = 1000 + 500 * (record["coll_perf"]["coll_sn"] % 2 == rank)
        paths.append(written(tmp_path / f"r{rank}.log", records))
    found = import_dumps(paths)
    assert found.summary["arrivals_table"][0]["calls_with_wait"] == 36
    assert "waited_for" not in found.summary


def test_the_repeated_messages_are_a_workload() -> None:
    found = import_dumps(RELEASE)
    assert found.summary["pattern_bytes"] == [8 << 20, 24 << 20, 4 << 20]
    assert found.workload_csv is not None
    assert found.workload_csv.splitlines()[1] == f"bucket.2,{4 << 20}"


def test_a_reduce_scatter_is_a_message_of_all_ranks_parts() -> None:
    assert import_dumps(VERBOSE).summary["pattern_bytes"] == [2 << 20]


def test_the_cluster_has_the_bandwidth_without_waiting() -> None:
    found = import_dumps(RELEASE)
    assert found.cluster_toml is not None
    row = row_of(found, 24 << 20)
    written = tomllib.loads(found.cluster_toml)
    assert written["cluster"] == {"data": {"bus_bandwidth": f"{round(row['last_rank_bus_Bps'])}B/s"}}
    assert written["ranks"] == 4
    assert "of each the time of the rank that came last" in found.cluster_toml


def test_one_ranks_times_give_a_lower_bound() -> None:
    found = import_dumps(RELEASE[:1])
    assert found.cluster_toml is not None
    assert "lower bound" in found.cluster_toml
    assert "bus bandwidth" in found.unknown
    assert found.unknown["absent"] == "no record of 3 of 4 ranks of 0x3fb1c9e2a7d45"
    assert "waited_for" not in found.summary


def test_version_4_2_tells_algorithms_sends_and_drops(tmp_path: Path) -> None:
    found = import_dumps([DATA / "dev_v4.2.jsonl"])
    assert found.summary["operations"] == {"AllReduce": 12, "Send": 3}
    assert found.summary["algorithms"] == {"RING SIMPLE": 12}
    assert (found.summary["dropped"], found.summary["not_recorded"]) == (0, 4)
    assert found.summary["communicators_table"][0]["name"] == "DP Group 0"
    assert len(found.summary["pattern_bytes"]) == 4
    assert "small messages" in found.unknown

    records = lines_of(DATA / "dev_v4.2.jsonl")
    for record in records:
        if "dump_stats" in record:
            record["dump_stats"]["coll_dropped_total"] = 7
    dropped = import_dumps([written(tmp_path / "d.log", records)])
    assert dropped.summary["dropped"] == 7
    assert "dropped 7 calls" in dropped.unknown["workload"]
    assert dropped.workload_csv is None


def test_version_4_3_has_a_header_for_many_operations() -> None:
    found = import_dumps([DATA / "dev_v4.3.jsonl"])
    rows = {(row["comm"], row["bytes"]): row["calls"] for row in found.summary["collectives_table"]}
    assert rows == {(0, 1 << 20): 2, (0, 2 << 20): 2, (1, 65536): 4}
    assert found.not_read == {"records of proxy_trace": 4}


def test_a_version_that_is_not_known_is_named(tmp_path: Path) -> None:
    records = lines_of(RELEASE[0])
    for record in records:
        record["metadata"]["inspector_output_format_version"] = "v9.1"
    found = import_dumps([written(tmp_path / "n.log", records)])
    assert found.unknown["version"].startswith("'v9.1' is not known here (v4.0 to v4.4 are)")
    assert found.summary["records"] == 36


def test_objects_on_several_lines_and_the_readme_s_example(tmp_path: Path) -> None:
    first = lines_of(RELEASE[0])[0]
    del first["coll_perf"]["coll_timing_source"]
    path = tmp_path / "pretty.json"
    path.write_text("\n".join(json.dumps(first, indent=2) for _ in range(2)))
    assert import_dumps([path]).summary["records"] == 2


def test_flat_records_and_times_with_fractions(tmp_path: Path) -> None:
    record = {
        "id": "abc", "rank": 0, "n_ranks": 8, "nnodes": 1, "pid": 1, "hostname": "w",
        "coll_perf": {"coll": "AllReduce", "coll_sn": 1, "coll_msg_size_bytes": 1048576, "coll_exec_time_us": 61974.5,
                      "coll_timing_source": "kernel_gpu", "coll_algobw_gbs": 0.0169, "coll_busbw_gbs": 0.0296},
    }  # fmt: skip
    found = import_dumps([written(tmp_path / "flat.jsonl", [record])])
    assert row_of(found, 1 << 20)["median_s"] == pytest.approx(0.0619745)
    assert found.unknown["workload"] == "the reductions repeat no pattern"


def test_times_of_the_host_s_call_are_left_out(tmp_path: Path) -> None:
    records = lines_of(RELEASE[0])
    for record in records:
        record["coll_perf"]["coll_timing_source"] = "collective_cpu"
    found = import_dumps([written(tmp_path / "cpu.log", records)])
    assert row_of(found, 24 << 20)["median_s"] is None
    assert "36 records" in found.unknown["times"]
    assert found.unknown["arrivals"].startswith("no communicator has records of two ranks")
    assert found.cluster_toml is None


def test_why_nobody_s_arrival_is_known_is_true(tmp_path: Path) -> None:
    paths = []
    for source in RELEASE:
        records = lines_of(source)
        for record in records:
            record["coll_perf"]["coll_timing_source"] = "collective_cpu"
        paths.append(written(tmp_path / source.name, records))
    assert import_dumps(paths).unknown["arrivals"].startswith("no call has a time of the GPU's clock")


def test_a_copy_of_a_file_counts_once_and_parts_count_both(tmp_path: Path) -> None:
    text = RELEASE[0].read_bytes()
    (tmp_path / "a.log").write_bytes(text)
    (tmp_path / "b.log.gz").write_bytes(gzip.compress(text))
    found = import_dumps([tmp_path / "a.log", tmp_path / "b.log.gz"])
    assert row_of(found, 24 << 20)["records"] == 12
    assert found.not_read == {"records that stand in two files": 36}
    lines = text.splitlines(keepends=True)
    (tmp_path / "p0.log").write_bytes(b"".join(lines[:20]))
    (tmp_path / "p1.log").write_bytes(b"".join(lines[20:]))
    assert import_dumps([tmp_path / "p0.log", tmp_path / "p1.log"]).summary["operations"] == {"AllReduce": 36}


def test_different_sizes_of_one_call_are_told_with_both_ranks(tmp_path: Path) -> None:
    records = lines_of(RELEASE[1])
    records[4]["coll_perf"]["coll_msg_size_bytes"] = 4096
    found = import_dumps([RELEASE[0], written(tmp_path / "x.log", records), *RELEASE[2:]])
    (difference,) = found.summary["differ"]
    assert difference == "AllReduce 4 of 0x3fb1c9e2a7d45: 4,096 B on rank 1, 25,165,824 B on rank 0"
    assert import_dumps(RELEASE).summary["differ"] == []


def test_a_cut_file_is_read_up_to_the_cut(tmp_path: Path) -> None:
    text = RELEASE[0].read_text()
    path = tmp_path / "cut.log"
    path.write_text(text[: len(text) // 2])
    found = import_dumps([path])
    assert 0 < found.summary["records"] < 36
    assert "cut off" in found.unknown["cut"]


def test_a_damaged_line_is_passed_over_and_counted(tmp_path: Path) -> None:
    lines = RELEASE[0].read_text().splitlines()
    lines[3] = lines[3][:100] + "\x00\x00" + lines[3][120:]
    lines[5] = "killed by signal 9"
    path = tmp_path / "damaged.log"
    path.write_text("\n".join(lines))
    found = import_dumps([path])
    assert found.summary["records"] == 34
    assert str(found.not_read["lines or records that make no sense"]).startswith("2; the first: damaged.log, character")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("loss 3.2\n", "has no record"),
        ('{"traceEvents": []}\n', "has neither coll_perf nor p2p_perf"),
        ('{"header": {"id": "0x1", "rank": 8, "n_ranks": 8}, "coll_perf": {}}\n', "header.rank is 8 of 8 ranks"),
        ('{"header": {"id": "0x1", "rank": 0, "n_ranks": 2}, "coll_perf": {"coll": "X", "coll_sn": 1e9}}\n', "coll_sn"),
        ("[" * 100_000, "has no record"),
        ('{"a":' * 100_000, "nested too deep"),
        ('{"header": ' + "9" * 10_000 + "}", "absurd length"),
    ],
)  # fmt: skip
def test_what_is_no_dump_is_one_error(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.log"
    path.write_text(text)
    with pytest.raises(InputError, match="expected records of NCCL Inspector") as caught:
        import_dumps([path])
    assert said in str(caught.value)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("name", ["node.parquet", "nccl_inspector_metrics.prom"])
def test_other_forms_are_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PAR1")
    with pytest.raises(InputError, match="which are not read"):
        import_dumps([tmp_path / name])


@pytest.mark.parametrize("path", [RELEASE[0], VERBOSE[1], DATA / "dev_v4.2.jsonl", DATA / "dev_v4.3.jsonl"])
def test_it_is_told_by_its_content(path: Path) -> None:
    assert format_of(path).name == "nccl-inspector"


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, 3000), st.binary(max_size=6)), max_size=8))
def test_damage_is_an_error_or_a_result(tmp_path: Path, edits: list[tuple[int, bytes]]) -> None:
    data = bytearray((DATA / "dev_v4.3.jsonl").read_bytes())
    for at, piece in edits:
        data[at : at + len(piece)] = piece
    path = tmp_path / "damaged.jsonl"
    path.write_bytes(data)
    with suppress(InputError):
        import_dumps([path])
