"""Tables of nccl-tests, whole and otherwise."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordsim.errors import InputError
from coordsim.formats.nccl_tests.reader import import_tables
from coordsim.formats.table import format_of
from tests.budget import examples

TABLE = Path(__file__).parents[2] / "data" / "nccl_tests" / "all_reduce_2nodes.txt"
TEXT = TABLE.read_text()
FORM = "nccl-tests"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_table() -> None:
    found = import_tables([TABLE])
    assert found.summary["collective"] == "all_reduce"
    assert (found.summary["ranks"], found.summary["nodes"], found.summary["rows"]) == (4, 2, 7)
    assert found.summary["smallest"] == {"bytes": 8, "time_s": 26.95e-6}
    assert found.summary["bus_bandwidth_Bps"] == 20.4e9
    assert found.cluster_toml is not None
    assert 'bus_bandwidth = "20400000000B/s"' in found.cluster_toml
    assert found.trace is None
    assert found.workload_csv is None


def test_the_older_form_without_root_and_with_errors(tmp_path: Path) -> None:
    columns = "time algbw busbw error"
    row = "1048576 262144 float sum  100.0 10.49 15.73 0e+00  99.0 10.6 15.9 N/A"
    path = written(tmp_path / "t.txt", f"# size count type redop {columns} {columns}\n{row}\n")
    found = import_tables([path])
    assert found.summary["largest"] == {"bytes": 1048576, "time_s": 99e-6}
    assert found.summary["collective"] is None
    assert found.cluster_toml is None
    assert "ranks" in found.unknown


def test_another_collective_gives_no_cluster(tmp_path: Path) -> None:
    found = import_tables([written(tmp_path / "t.txt", "# Collective test starting: all_gather_perf\n" + TEXT)])
    assert found.summary["collective"] == "all_gather"
    assert found.cluster_toml is None


def as_json(path: Path, **changes: object) -> Path:
    """What ``-J`` writes of the same run: one device is listed for each process."""
    devices = [
        {"rank": rank, "group": 0, "pid": 1, "hostname": f"node0{1 + rank // 2}", "device": 0, "device_info": "A100"}
        for rank in range(4)
    ]
    results = [
        {"size": int(words[0]), "count": int(words[1]), "type": words[2], "redop": words[3], "root": words[4],
         "out_of_place": _variant(words[5:9]), "in_place": _variant(words[9:13]), "actual_iterations": 20}
        for words in (line.split() for line in TEXT.splitlines()) if words and words[0].isdigit()
    ]  # fmt: skip
    found = {
        "version": 2, "start_time": "2026-01-01 00:00:00", "args": ["/opt/nccl-tests/all_reduce_perf", "-J", "x"],
        "env": ["PATH=/bin", "SECRET=1"], "nccl_version": 22703,
        "config": {"nthreads": 1, "ngpus": 1, "iterations": 20, "devices": devices}, "results": results,
        "out_of_bounds": {"count": 0, "okay": "true"}, "average_bus_bandwidth": {"bandwidth": 6.62}, "errors": [],
    }  # fmt: skip
    return written(path, json.dumps(found | changes))


def _variant(words: list[str]) -> dict[str, float]:
    return {"time": float(words[0]), "alg_bw": float(words[1]), "bus_bw": float(words[2]), "nwrong": float(words[3])}


def test_json_says_what_the_text_says(tmp_path: Path) -> None:
    path = as_json(tmp_path / "t.json")
    assert format_of(path).name == FORM
    found, text = import_tables([path]), import_tables([TABLE])
    assert found.summary == text.summary | {"gpus": ["A100"], "version": "NCCL 22703"}
    assert found.cluster_toml == text.cluster_toml
    assert "SECRET" not in json.dumps([found.summary, found.unknown])
    several = json.loads(path.read_text())["config"] | {"nthreads": 2, "ngpus": 4}
    assert import_tables([as_json(path, config=several)]).summary["ranks"] == 32


def test_json_with_iterations_one_by_one(tmp_path: Path) -> None:
    times = {"min_us": 90.0, "p50_us": 99.0, "p99_us": 120.0, "max_us": 150.5}
    row = {"size": 1 << 20, "out_of_place": None, "in_place": _variant(["100.0", "10.49", "15.73", "0"]),
           "in_place_per_iter": times}  # fmt: skip
    found = import_tables([as_json(tmp_path / "t.json", results=[row])])
    assert found.summary["spread"] == [[1 << 20, 90e-6, 99e-6, 120e-6, 150.5e-6]]
    assert found.summary["bus_bandwidth_p99_to_best_Bps"] == pytest.approx([15.73e9 / 1.2, 15.73e9 / 0.9])


def test_cut_json_is_read_up_to_the_cut(tmp_path: Path) -> None:
    whole = as_json(tmp_path / "t.json").read_text()
    found = import_tables([written(tmp_path / "t.json", whole[: whole.index('"count": 131072')])])
    assert found.summary["rows"] == 4
    assert "cut" in found.unknown


def test_columns_by_iteration_and_of_a_replay(tmp_path: Path) -> None:
    columns = "time algbw busbw #wrong i_min i_max i_p99 i_cv%"
    header = f"# size count type redop root {columns} {columns} timestamp\n"
    row = "1048576 262144 float sum -1  1 2 3 0 1 2 3 4  100.0 10.49 15.73 0 90.0 150.5 120.0 3.1 2026-01-01 00:00:00\n"
    found = import_tables([written(tmp_path / "t.txt", header + row)])
    assert found.summary["spread"] == [[1 << 20, 90e-6, None, 120e-6, 150.5e-6]]
    assert "spread" not in found.unknown
    header = "# size count type redop root time algbw busbw #wrong time algbw busbw #wrong\n"
    found = import_tables([written(tmp_path / "t.txt", header + "8 2 float sum -1   26.95 0.01 0.02 0\n")])
    assert found.summary["largest"] == {"bytes": 8, "time_s": 26.95e-6}


def test_a_list_of_ranks_that_was_cut_tells_no_ranks(tmp_path: Path) -> None:
    text = TEXT.replace("nGpus 1", "nGpus 8")
    found = import_tables([written(tmp_path / "t.txt", text)])
    assert found.summary["ranks"] is None
    assert found.unknown["ranks"] == "the list of ranks is cut off"


def test_wrong_results_are_told(tmp_path: Path) -> None:
    found = import_tables([written(tmp_path / "t.txt", TEXT.replace("20.40      0", "20.40      7"))])
    assert found.summary["rows_with_wrong_results"] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no header"),
        ("# busbw\n", "no header"),
        (TEXT[: TEXT.index("           8 ")], "no row below the header"),
        (re.sub(r" [0-9]+\.[0-9]+ ", " fast ", TEXT), "no row is whole: line 13: 'fast' is no time"),
        (TEXT.replace("26.95", "1e999"), "is no time"),
        (TEXT.replace("     524288 ", "       1000 "), "size 1000 after 32768: two runs?"),
        (TEXT.replace("    time ", " cputime "), "times the CPU's part of a call alone (-C)"),
        ("#  bytes  N  type  op  time  algbw  busbw  res\n 8 8 char sum 0.1 1 1 0\n", "tests of NCCL 1, whose times"),
        ('{"args": []}', "results: holds no row"),
        ('{"results": [3]}', "results[0]: is no row"),
        ('{"results": [{"size": 8, "in_place": {"time": -1}}]}', "'-1' is no time"),
        ('{"results": [{"size": 8, "in_place": {"time": NaN}}]}', "'nan' is no time"),
        ('{"results": [{"size": 8, "in_place": {"cpu_time": 1}}]}', "times the CPU's part"),
    ],
)
def test_what_is_no_table_is_one_error(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        import_tables([written(tmp_path / "t.txt", text)])
    assert said in str(caught.value)
    assert len(caught.value.problems) == 1


def test_several_tables_of_one_log_are_imported_and_named_apart(tmp_path: Path) -> None:
    found = import_tables([written(tmp_path / "t.txt", TEXT + TEXT.replace("all_reduce", "all_gather"))])
    tables = found.summary["tables"]
    assert [(table["number"], table["line"], table["rows"]) for table in tables] == [(1, 10, 7), (2, 32, 7)]
    assert list(found.clusters) == [1, 2]


@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(TEXT) - 1), length=st.integers(0, 40), put=st.text(max_size=12))
def test_damage_is_refused_or_read(tmp_path: Path, at: int, length: int, put: str) -> None:
    path = tmp_path / "t.txt"
    path.write_text(TEXT[:at] + put + TEXT[at + length :], encoding="utf-8")
    with suppress(InputError):
        import_tables([path])
