"""Tables of nccl-tests, whole and otherwise."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordsim.errors import InputError
from coordsim.record.nccltests import import_tables

TABLE = Path(__file__).parents[1] / "data" / "nccl_tests" / "all_reduce_2nodes.txt"
TEXT = TABLE.read_text()


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


def test_wrong_results_are_told(tmp_path: Path) -> None:
    found = import_tables([written(tmp_path / "t.txt", TEXT.replace("20.40      0", "20.40      7"))])
    assert found.summary["rows_with_wrong_results"] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no header"),
        ("# busbw\n", "no header"),
        (TEXT[: TEXT.index("           8 ")], "no row below the header"),
        (TEXT + TEXT, "where rank 4 is next"),
        (TEXT.replace("26.95", "fast"), "line 13: 'fast' is no time"),
        (TEXT.replace("26.95", "1e999"), "is no time"),
        (TEXT.replace("     524288 ", "       1000 "), "size 1000 after 32768: two runs?"),
        (TEXT.replace("#  Rank  1", "#  Rank  5"), "rank 5 where rank 1 is next"),
    ],
)
def test_what_is_no_table_is_one_error(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        import_tables([written(tmp_path / "t.txt", text)])
    assert said in str(caught.value)
    assert len(caught.value.problems) == 1


def test_two_tables() -> None:
    with pytest.raises(InputError, match="2 tables"):
        import_tables([TABLE, TABLE])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(TEXT) - 1), length=st.integers(0, 40), put=st.text(max_size=12))
def test_damage_is_refused_or_read(tmp_path: Path, at: int, length: int, put: str) -> None:
    path = tmp_path / "t.txt"
    path.write_text(TEXT[:at] + put + TEXT[at + length :], encoding="utf-8")
    with suppress(InputError):
        import_tables([path])
