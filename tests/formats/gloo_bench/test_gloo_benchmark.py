"""Tables of gloo's benchmark, in the forms that it has printed since 2017."""

from __future__ import annotations

import gzip
import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordsim.errors import InputError
from coordsim.formats.gloo_bench.reader import import_tables
from coordsim.formats.imported import Imported
from coordsim.formats.table import format_of
from tests.budget import examples

TABLE = Path(__file__).parents[2] / "data" / "gloo_benchmark" / "allreduce_ring_chunked_4.txt"
TEXT = TABLE.read_text()
FORM = "gloo-benchmark"
NUMBERS = [line.split() for line in TEXT.splitlines() if re.match(r"\s+[0-9]", line)]
HEAD = "Device:      tcp, pci=, iface=eth0\nAlgorithm:   allreduce_ring_chunked\nOptions:     processes=4, inputs=1"


def older(names: str, columns: list[int], head: str = HEAD) -> str:
    """The same run with other columns, told by their places in the newest form."""
    rows = ["".join(numbers[column].rjust(13) for column in columns) for numbers in NUMBERS]
    return "\n".join([head, "", names, *rows, ""])


TIMES = "   elements   min (us)   p50 (us)   p99 (us)   max (us)"
FORMS = {
    "2017-04": older(f"{TIMES}    samples", [1, 2, 3, 4, 5, 7]),
    "2017-08": older(f"{TIMES}   avg (GB/s)    samples", [1, 2, 3, 4, 5, 6, 7], HEAD + ", threads=1"),
    "2021": TEXT,
}


def read(path: Path, text: str) -> Imported:
    path.write_text(text)
    assert format_of(path).name == FORM
    return import_tables([path])


@pytest.mark.parametrize("form", FORMS)
def test_each_form(form: str, tmp_path: Path) -> None:
    found = read(tmp_path / "t.txt", FORMS[form])
    summary = found.summary
    assert (summary["collective"], summary["algorithm"]) == ("all_reduce", "allreduce_ring_chunked")
    assert (summary["ranks"], summary["rows"], summary["rows_with_wrong_results"]) == (4, 6, 0)
    median_s, mean_s = 0.010608, 20_000_000 / (1.739 * 2**30)
    time_s = median_s if form == "2017-04" else mean_s
    assert summary["largest"] == {"bytes": 20_000_000, "time_s": pytest.approx(time_s, rel=1e-6)}
    assert summary["bus_bandwidth_Bps"] == pytest.approx(1.5 * 20_000_000 / time_s, rel=1e-6)
    assert summary["bus_bandwidth_p99_to_best_Bps"] == pytest.approx([1.5 * 2e7 / 0.011106, 1.5 * 2e7 / 0.010030])
    assert summary["spread"][0] == [400, 195e-6, 263e-6, 342e-6, 437e-6]
    assert summary["smallest"]["time_s"] == 263e-6
    assert ("mean" in found.unknown, "bytes" in found.unknown) == (form == "2017-04", form == "2017-04")
    assert found.cluster_toml is not None
    assert "ranks = 4" in found.cluster_toml
    assert f'bus_bandwidth = "{round(summary["bus_bandwidth_Bps"])}B/s"' in found.cluster_toml


def test_the_oldest_form_says_neither_ranks_nor_algorithm(tmp_path: Path) -> None:
    found = read(tmp_path / "t.txt", older(f"{TIMES}    samples", [1, 2, 3, 4, 5, 7], head=""))
    assert (found.summary["ranks"], found.summary["collective"], found.cluster_toml) == (None, None, None)
    assert {"ranks", "collective", "bytes"} <= set(found.unknown)


@pytest.mark.parametrize("algorithm", ["allreduce_local", "allgather_ring", "broadcast_one_to_all", "barrier_all"])
def test_only_an_allreduce_between_processes_gives_a_cluster(algorithm: str, tmp_path: Path) -> None:
    found = read(tmp_path / "t.txt", TEXT.replace("ALLREDUCE_RING_CHUNKED", algorithm.upper()))
    assert found.summary["collective"] == algorithm
    assert (found.cluster_toml, found.summary["bus_bandwidth_Bps"]) == (None, None)


@pytest.mark.parametrize("prefix", ["NEW", "CUDA"])
def test_variants_of_an_allreduce(prefix: str, tmp_path: Path) -> None:
    found = read(tmp_path / "t.txt", TEXT.replace("ALLREDUCE_RING_CHUNKED", f"{prefix}_ALLREDUCE_RING"))
    assert found.summary["collective"] == "all_reduce"
    assert found.cluster_toml is not None


def test_nanoseconds_half_precision_and_threads(tmp_path: Path) -> None:
    names = f"{TIMES}   avg (GB/s)    samples".replace("(us)", "(ns)")
    rows = "    5000000   10030000   10608000   11106000   11628000        1.756         92\n"
    found = read(tmp_path / "t.txt", f"{HEAD}, threads=2\n\n{names}\n{rows}")
    assert found.summary["largest"] == {"bytes": 10_000_000, "time_s": pytest.approx(0.010607, rel=1e-3)}
    assert found.summary["bus_bandwidth_Bps"] == pytest.approx(1.5 * 1.756 * 2**30, rel=1e-6)
    assert "2 threads" in found.unknown["single"]


def test_wrong_results_and_a_cut_are_told(tmp_path: Path) -> None:
    ends = TEXT.rstrip().rstrip("=").rstrip()
    found = read(tmp_path / "t.txt", f"{ends}\n\n{'=' * 100}\n   VERIFY ERRORS\n\nRank: 1 Mismatch at index: 0\n")
    assert found.summary["rows_with_wrong_results"] == 1
    found = read(tmp_path / "t.txt", ends[:-60])
    assert found.summary["rows"] == 5
    assert "the last line ends at" in found.unknown["cut"]
    packed = gzip.compress(TEXT.encode())
    (tmp_path / "t.gz").write_bytes(packed[:-12])
    assert "compressed file is cut off" in import_tables([tmp_path / "t.gz"]).unknown["cut"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no header"),
        (TEXT[: TEXT.index("        400 ")], "no row below the header"),
        (TEXT.replace(" 263 ", " -63 "), "line 11: '-63' is no p50"),
        (TEXT.replace(" 263 ", " 163 "), "line 11: its times do not grow"),
        (TEXT.replace(" 263 ", " 9" + 17 * "9" + " "), "is no p50"),
        (TEXT.replace("1.739", "fast"), "'fast' is no bandwidth"),
        (TEXT.replace("   400000 ", "      300 "), "size 300 after 40000: two runs?"),
        (TEXT.replace("processes=4", "processes=0"), "no number of processes"),
    ],
)
def test_what_is_no_table_is_one_error(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(InputError) as caught:
        import_tables([tmp_path / "t.txt"])
    assert said in str(caught.value)
    assert len(caught.value.problems) == 1


@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(sorted(FORMS)), at=st.integers(0, len(TEXT) - 1), length=st.integers(0, 40),
    put=st.text(max_size=12),
)  # fmt: skip
def test_damage_is_refused_or_read(tmp_path: Path, form: str, at: int, length: int, put: str) -> None:
    text = FORMS[form]
    (tmp_path / "t.txt").write_text(text[:at] + put + text[at + length :], encoding="utf-8")
    with suppress(InputError):
        import_tables([tmp_path / "t.txt"])


WRAPS = ["[1,0]<stdout>:", "0: ", "2026-11-29T13:08:59.1Z ", "worker-1  | ", "\x1b[1m", "[rank0]: "]


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_wrapped_log_says_what_the_plain_one_says(wrap: str, tmp_path: Path) -> None:
    plain = import_tables([TABLE])
    wrapped = read(tmp_path / "t.txt", "".join(f"{wrap}{line}\r\n" for line in TEXT.splitlines()))
    assert (wrapped.summary, wrapped.cluster_toml) == (plain.summary, plain.cluster_toml)


def test_several_tables_of_one_log(tmp_path: Path) -> None:
    second = TEXT.replace("ALLREDUCE_RING_CHUNKED", "BARRIER_ALL_TO_ALL")
    found = read(tmp_path / "t.txt", "+ ./benchmark\n" + TEXT + second)
    assert [table["collective"] for table in found.summary["tables"]] == ["all_reduce", "barrier_all_to_all"]
    assert list(found.clusters) == [1]


def test_results_that_were_not_verified_are_not_known_to_be_right(tmp_path: Path) -> None:
    found = read(tmp_path / "t.txt", TEXT.replace("verify=true", "verify=false"))
    assert found.summary["rows_with_wrong_results"] is None
    assert "rows with wrong results" in found.unknown
