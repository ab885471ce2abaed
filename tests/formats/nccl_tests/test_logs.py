"""Logs of nccl-tests as users have them: several runs, other columns, wrapped text, and what must not be guessed."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from coordsim.errors import InputError
from coordsim.formats.imported import Imported
from coordsim.formats.nccl_tests.reader import import_tables
from coordsim.formats.table import import_source

DATA = Path(__file__).parents[2] / "data" / "nccl_tests"
TEXT = (DATA / "all_reduce_2nodes.txt").read_text()
DEBUG = "node01:41201:41260 [0] NCCL INFO AllReduce: opCount 0"
COLUMNS = "time algbw busbw"


def read(path: Path, text: str) -> Imported:
    path.write_text(text)
    found = import_source(path, "auto")
    assert found.format == "nccl-tests"
    return found


def table(rows: list[str], lead: str = "size count type redop root", check: str = "#wrong", ranks: int = 4) -> str:
    """An output of ``ranks`` processes on one node, with the given columns and rows."""
    devices = (f"#  Rank {rank:2} Group  0 Pid {100 + rank} on n1 device {rank} [0x07] A100" for rank in range(ranks))
    group = f"{COLUMNS} {check}"
    settings = "# nThread 1 nGpus 1 minBytes 8 maxBytes 1073741824 step"
    return "\n".join([settings, *devices, f"# {lead} {group} {group}", *rows, ""])


def row(size: int, lead: str, bandwidths: str = "10.00 15.00", check: str = "0") -> str:
    return f"{size} {size // 4} {lead} 100.0 {bandwidths} {check} 100.0 {bandwidths} {check}"


# Rows of cases/README.md.


@pytest.mark.parametrize("name", ["broadcast_2ranks.txt", "sendrecv_2ranks.txt"])
def test_two_ranks_show_no_allreduce(name: str) -> None:
    found = import_source(DATA / name, "auto")
    assert found.summary["collective"] == ("broadcast" if name.startswith("broadcast") else None)
    assert found.summary["ranks"] == 2
    assert found.cluster_toml is None
    if name.startswith("sendrecv"):
        assert "at 2 ranks an allreduce's bus and algorithm bandwidth are equal" in found.unknown["collective"]


def test_wrong_results_of_the_older_column_are_said_and_give_no_cluster() -> None:
    found = import_source(DATA / "error_column_failed.txt", "auto")
    assert (found.summary["rows_with_wrong_results"], found.summary["values_out_of_bounds"]) == (3, 50)
    assert "results are wrong (50 values)" in found.unknown["cluster"]
    assert found.cluster_toml is None


def test_tags_of_mpirun_are_taken_off() -> None:
    found = import_source(DATA / "tag_output.log", "auto")
    assert (found.summary["ranks"], found.summary["bus_bandwidth_Bps"]) == (2, 8.59e9)


# No guess.


def test_an_allreduce_shows_by_its_ratio_at_three_ranks_and_more(tmp_path: Path) -> None:
    for ranks, bandwidths in ((3, "9.00 12.00"), (4, "10.00 15.00"), (8, "0.11 0.19")):
        found = read(tmp_path / "t", table([row(8, "float sum -1", bandwidths)], ranks=ranks))
        assert found.summary["collective"] == "all_reduce", ranks
        assert found.cluster_toml is not None


@pytest.mark.parametrize(
    ("lead", "bandwidths", "collective"),
    [
        ("float sum -1", "10.00 7.50", "reduce_scatter"),
        ("float none -1", "10.00 7.50", None),  # all_gather or alltoall
        ("float none -1", "10.00 10.00", None),  # hypercube, or an all_gather until 2021
        ("float none -1", "10.00 15.00", None),  # an allreduce reduces
        ("float sum -1", "10.00 10.00", None),  # sendrecv, or a reduce_scatter until 2021
        ("float sum 0", "10.00 10.00", "reduce"),
        ("float none 2", "10.00 10.00", "broadcast"),
        ("float none 2", "10.00 7.50", None),  # gather or scatter
        ("float none 2", "0.01 0.01", None),
        ("float sum -1", "0.01 0.01", None),
        ("float sum -1", "inf inf", None),
    ],
)
def test_other_columns_and_ratios_show_no_allreduce(
    lead: str, bandwidths: str, collective: str | None, tmp_path: Path
) -> None:
    found = read(tmp_path / "t", table([row(8, lead, bandwidths)]))
    assert found.summary["collective"] == collective
    assert (collective is None) == ("collective" in found.unknown)
    assert found.cluster_toml is None


@pytest.mark.parametrize(
    ("lead", "columns", "ranks", "bandwidths", "collective"),
    [
        ("float none 0", "size count type redop root", 2, "10.00 10.00", "broadcast"),
        ("float 0", "size count type root", 2, "10.00 10.00", "broadcast"),  # the columns until 2022
        ("float 0", "size count type root", 2, "10.00 5.00", None),  # gather or scatter
        ("float none 0", "size count type redop root", 2, "10.00 5.00", None),
        ("float none 0", "size count type redop root", 400, "10.00 10.00", None),  # 399/400 is rounded away
        ("float sum -1", "size count type redop root", 2, "10.00 10.00", None),
        ("float sum -1", "size count type redop root", 2, "10.00 5.00", "reduce_scatter"),
        ("float sum 1", "size count type redop root", 2, "10.00 10.00", "reduce"),
        ("float none -1", "size count type redop root", 2, "10.00 5.00", None),
    ],
)
def test_columns_and_ratio_name_a_program_only_where_no_other_prints_alike(
    lead: str, columns: str, ranks: int, bandwidths: str, collective: str | None, tmp_path: Path
) -> None:
    found = read(tmp_path / "t", table([row(8, lead, bandwidths)], columns, ranks=ranks))
    assert found.summary["collective"] == collective
    assert found.cluster_toml is None
    if collective is None:
        assert "names no program" in found.unknown["collective"]


def test_a_root_alone_is_no_broadcast_where_the_ranks_are_not_known(tmp_path: Path) -> None:
    text = table([row(8, "float none 0", "10.00 10.00")], ranks=0)
    found = read(tmp_path / "t", text)
    assert (found.summary["collective"], found.summary["ranks"]) == (None, None)


def test_a_command_line_names_the_collective_unless_the_table_denies_it(tmp_path: Path) -> None:
    two = table([row(8, "float sum -1", "10.00 10.00")], ranks=2)
    assert read(tmp_path / "t", "+ mpirun -np 2 ./all_reduce_perf -b 8\n" + two).summary["collective"] == "all_reduce"
    found = read(tmp_path / "t", "$ ./all_reduce_perf; ./sendrecv_perf\n$ ./sendrecv_perf\n" + two)
    assert found.summary["collective"] is None
    assert found.unknown["collective"] == "the log names all_reduce, sendrecv before this table"
    four = table([row(8, "float sum -1", "10.00 10.00")])
    found = read(tmp_path / "t", "./all_reduce_perf\n" + four)
    assert "prints other columns or bandwidths" in found.unknown["collective"]
    said = "# Collective test starting: sendrecv_perf\n" + two
    assert read(tmp_path / "t", "./all_reduce_perf\n" + said).summary["collective"] == "sendrecv"


def test_a_command_line_before_one_table_says_nothing_of_the_next(tmp_path: Path) -> None:
    two = table([row(8, "float sum -1", "10.00 10.00")], ranks=2)
    found = read(tmp_path / "t", "./all_reduce_perf\n" + two + two)
    assert [each["collective"] for each in found.summary["tables"]] == ["all_reduce", None]


def test_results_that_were_not_checked_are_not_known_to_be_right(tmp_path: Path) -> None:
    text = table([row(8, "float sum -1", check="N/A")]) + "# Out of bounds values : 0 OK\n"
    found = read(tmp_path / "t", text)
    assert found.summary["rows_with_wrong_results"] is None
    assert found.summary["values_out_of_bounds"] is None
    assert found.unknown["rows with wrong results"] == "results were not checked"


def test_wrong_results_out_of_place_count(tmp_path: Path) -> None:
    text = table(["8 2 float sum -1 100.0 10.00 15.00 3 100.0 10.00 15.00 0"])
    found = read(tmp_path / "t", text)
    assert found.summary["rows_with_wrong_results"] == 1
    assert found.cluster_toml is None


@pytest.mark.parametrize(
    ("error", "wrong"),
    [("0e+00", 0), ("4e-06", 0), ("5e-03", 1), ("2e+00", 1), ("1e-08*", 1), ("inf", 1), ("nan", 1), ("N/A", None)],
)
def test_the_older_column_is_an_error_that_rounding_may_make(error: str, wrong: int | None, tmp_path: Path) -> None:
    text = table([row(8, "float sum", check=error)], lead="size count type redop", check="error")
    assert read(tmp_path / "t", text).summary["rows_with_wrong_results"] == wrong


# Columns of versions and forks.


def test_rows_of_one_variant_and_in_the_other_order(tmp_path: Path) -> None:
    mscclpp = (
        "#                                        in-place                       out-of-place\n"
        f"# size count {COLUMNS} #wrong {COLUMNS} #wrong\n 1048576 262144 31.4 33.40 58.45 0\n"
    )
    assert read(tmp_path / "t", mscclpp).summary["bus_bandwidth_Bps"] == 58.45e9
    both = mscclpp.replace("58.45 0\n", "58.45 0 99.0 1.00 1.00 0\n")
    assert read(tmp_path / "t", both).summary["bus_bandwidth_Bps"] == 58.45e9


def test_hashes_that_markdown_took_and_an_empty_operation(tmp_path: Path) -> None:
    text = table([row(8, "float -1", "10.00 10.00")]).replace("#  ", "  ").replace("# ", " ")
    found = read(tmp_path / "t", text)
    assert (found.summary["rows"], found.summary["ranks"], found.summary["collective"]) == (1, 4, None)


def test_versions_are_named_and_one_that_is_not_known_is_said(tmp_path: Path) -> None:
    head = "# nccl-tests version 2.{} nccl-headers=22807 nccl-library=22807\n"
    found = read(tmp_path / "t", head.format("17.6") + TEXT)
    assert found.summary["version"] == "nccl-tests 2.17.6 nccl-headers=22807 nccl-library=22807"
    assert "version" not in found.unknown
    assert "newer than 2.19" in read(tmp_path / "t", head.format("31.0") + TEXT).unknown["version"]
    rccl = TEXT.replace("# Using devices", "rccl-tests: Version develop:abc1234\n# Using devices")
    assert read(tmp_path / "t", rccl).summary["version"] == "rccl-tests develop:abc1234"


def test_numbers_in_every_notation(tmp_path: Path) -> None:
    text = table([row(1 << 33, "float sum -1").replace("100.0", "1.2e+06").replace("10.00 15.00", "1234.5 1851.8")])
    found = read(tmp_path / "t", text)
    assert found.summary["largest"] == {"bytes": 1 << 33, "time_s": pytest.approx(1.2)}
    assert found.summary["bus_bandwidth_Bps"] == pytest.approx(1851.8e9)


# Several tables.


def test_types_operations_roots_and_cycles_are_tables_of_their_own(tmp_path: Path) -> None:
    kinds = ["float sum -1", "half sum -1", "half max -1"]
    rows = [row(size, kind) for kind in kinds for size in (8, 16)]
    assert named(read(tmp_path / "t", table(rows))) == ["float sum", "half sum", "half max"]
    rows = [row(size, f"float none {root}", "10.00 10.00") for root in (0, 1) for size in (8, 16)]
    assert named(read(tmp_path / "t", table(rows))) == ["float root 0", "float root 1"]
    rows = [row(size, kinds[0]) for _ in range(3) for size in (8, 16)]
    assert named(read(tmp_path / "t", table(rows))) == ["float sum", "float sum cycle 2", "float sum cycle 3"]
    one = table([row(8, kinds[0])] * 2).replace("maxBytes 1073741824", "maxBytes 8")
    assert named(read(tmp_path / "t", one)) == ["float sum", "float sum cycle 2"]


def named(found: Imported) -> list[Any]:
    return [each["of"] for each in found.summary["tables"]]


def test_small_sizes_that_a_gather_rounds_to_equal_ones_are_no_cycle(tmp_path: Path) -> None:
    rows = [row(size, "float none -1", "0.00 0.00") for size in (0, 0, 0, 128, 128, 256)]
    assert read(tmp_path / "t", table(rows)).summary["rows"] == 6


def test_tables_of_several_writers_are_read_apart(tmp_path: Path) -> None:
    lines = table([row(8, "float sum -1"), row(16, "float sum -1")], ranks=1).splitlines()
    log = "".join(f"[1,{rank}]<stdout>:{line}\n" for line in lines for rank in (0, 1))
    found = read(tmp_path / "t", log)
    assert [(each["printed_by"], each["rows"], each["ranks"]) for each in found.summary["tables"]] == [
        ("rank 0", 2, 1), ("rank 1", 2, 1)
    ]  # fmt: skip


def test_tables_of_several_processes_in_one_another_are_one_true_error(tmp_path: Path) -> None:
    lines = table([row(8, "float sum -1"), row(16, "float sum -1")], ranks=1).splitlines()
    head, rows = lines[:-2], lines[-2:]
    logs = [
        [line for line in lines for _ in range(2)],
        [*head, *head, *[line for line in rows for _ in range(2)]],
        [head[0], head[0], *head[1:], *head[1:], *rows, *rows],
    ]
    for log in logs:
        (tmp_path / "t").write_text("\n".join(log) + "\n")
        with pytest.raises(InputError, match="several processes printed their tables into one another"):
            import_source(tmp_path / "t", "auto")


def test_a_run_that_failed_before_its_rows_is_no_obstacle(tmp_path: Path) -> None:
    failed = TEXT[: TEXT.index("#       size")] + "node01: Test NCCL failure common.cu:954 'unhandled system error'\n"
    found = read(tmp_path / "t", failed + TEXT)
    assert (found.summary["ranks"], found.summary["rows"]) == (4, 7)


def test_a_table_that_makes_no_sense_is_listed_beside_others(tmp_path: Path) -> None:
    cpu = TEXT.replace("    time ", " cputime ")
    found = read(tmp_path / "t", cpu + TEXT)
    assert found.summary["rows"] == 7
    assert any("times the CPU's part" in str(why) for why in found.not_read.values())


def test_rows_that_other_output_interrupts(tmp_path: Path) -> None:
    cut = TEXT.replace("-1   118.40", f"-1{DEBUG}\n{DEBUG}\n   118.40")
    assert read(tmp_path / "t", cut).summary == import_tables([DATA / "all_reduce_2nodes.txt"]).summary
    lost = read(tmp_path / "t", TEXT.replace("-1   118.40", "-1 Thrd<0> start"))
    assert lost.summary["rows"] == 6
    assert "1 rows are not whole or interrupted by other output (line 17: 'Thrd<0>' is no time)" in lost.unknown["rows"]


def test_a_table_far_behind_other_output_is_found(tmp_path: Path) -> None:
    noise = "".join(f"node01:1:2 [0] NCCL INFO Channel {number:05} : 0 1 2 3\n" for number in range(4000))
    assert read(tmp_path / "t", noise + TEXT).summary["ranks"] == 4
    assert read(tmp_path / "t", "x\n" * 100_000 + TEXT).summary["ranks"] == 4


# Ranks.


def test_lists_of_ranks_that_are_not_whole_tell_no_ranks(tmp_path: Path) -> None:
    found = read(tmp_path / "t", TEXT.replace("#  Rank  1", "#  Rank  5"))
    assert found.summary["ranks"] is None
    assert found.unknown["ranks"] == "the list of ranks is not whole: rank 5 stands where rank 1 is next"
    listed = [
        f"#  Rank {16 * host + rank:2} Group  0 Pid 1 on n{host} device {rank} [0x07] {'A10' if rank < 7 else 'A...'}\n"
        for host in range(2) for rank in range(8)
    ]  # fmt: skip
    many = "# nThread 1 nGpus 16 minBytes 8 maxBytes 8 step\n" + "".join(listed)
    shortened = many + TEXT[TEXT.index("#       size") :]
    assert read(tmp_path / "t", shortened).summary["ranks"] == 32


def test_groups_that_run_at_once_are_one_communicator_each(tmp_path: Path) -> None:
    text = TEXT.replace("Rank  2 Group  0", "Rank  2 Group  1").replace("Rank  3 Group  0", "Rank  3 Group  1")
    found = read(tmp_path / "t", text)
    assert found.summary["ranks"] == 2
    assert found.unknown["single"] == "2 groups of ranks ran at once; ranks are of one of them"


# Wrapped text: whatever runs the benchmark, the table is the same.

WRAPS = ["[1,0]<stdout>:", "[1,0]<stdout>: ", "0: ", " 0: ", "[0] ", "[default0]:", "2026-11-29T13:08:59.123456789Z ",
         "[pod/nccl-x7/main] ", "worker-1  | ", "Nov 29 13:08:59 nodea job.sh[12]: ", "\x1b[32m", "node01: ", "> ",
         "2026-11-29 13:08:59,123 - INFO - ", " 10%|#| 1/10\r", "Sat Nov 29 13:08:59 2026[1,0]<stdout>:"]  # fmt: skip


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_wrapped_log_says_what_the_plain_one_says(wrap: str, end: str, tmp_path: Path) -> None:
    plain = import_tables([DATA / "all_reduce_2nodes.txt"])
    (tmp_path / "t").write_text("".join(f"{wrap}{line}{end}" for line in TEXT.splitlines()), newline="")
    wrapped = import_source(tmp_path / "t", "auto")
    assert wrapped.summary == plain.summary
    assert wrapped.unknown == plain.unknown


def test_utf_16_as_powershell_writes_it(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(("\ufeff" + TEXT.replace("\n", "\r\n")).encode("utf-16-le"))
    assert import_source(tmp_path / "t", "auto").summary["ranks"] == 4


ABSURD = [
    "# nThread 999999 nGpus 999999\n" + TEXT,
    TEXT.replace("Rank  3", "Rank 999999999"),
    TEXT.replace("   134217728 ", "9" * 30 + " "),
    "# " + "size count algbw busbw time " * 999,
    TEXT.replace("Avg bus bandwidth    : 6.62", "Avg bus bandwidth : 1e999"),
    TEXT.replace("values : 0", "values : " + "9" * 40),
]


@pytest.mark.parametrize("text", ABSURD)
def test_absurd_numbers_are_refused_or_passed_over(text: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_text(text)
    with suppress(InputError):
        found = import_source(tmp_path / "t", "auto")
        assert found.summary["average_bus_bandwidth_Bps"] in (None, 6.62e9)


def test_shuffled_logs_are_refused_or_read(tmp_path: Path) -> None:
    chance = random.Random(1)
    lines = TEXT.splitlines()
    for _ in range(150):
        chance.shuffle(lines)
        (tmp_path / "t").write_text("\n".join(lines[: chance.randrange(len(lines))]))
        with suppress(InputError):
            import_source(tmp_path / "t", "nccl-tests")
