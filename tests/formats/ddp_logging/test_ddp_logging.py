"""DDP's logging data as a workload: recorded by PyTorch 2.13, and in every way that people keep it."""

from __future__ import annotations

import gzip
import json
import pprint
from pathlib import Path
from typing import Any

import pytest

from coordsim.errors import InputError
from coordsim.formats.ddp_logging import import_logging_data
from coordsim.formats.table import import_source
from coordsim.scenario.tensors import read_csv

DATA = Path(__file__).parents[2] / "data" / "ddp_logging"
AFTER = "name,numel,dtype\nbucket.1,16640,float32\nbucket.0,67848,float32\n"
"""Reduced first: bucket.0, the last row, as backward walks a list from its end."""


def logged(**changes: Any) -> dict[str, Any]:
    """What rank 0 logged after training, changed; None takes a key away."""
    found = {**json.loads((DATA / "after_rank0.json").read_text()), **changes}
    return {key: value for key, value in found.items() if value is not None}


def read(tmp_path: Path, *dicts: dict[str, Any] | str) -> Any:
    path = tmp_path / "log.txt"
    path.write_text("\n".join(each if isinstance(each, str) else str(each) for each in dicts))
    return import_logging_data([path])


def test_before_training_the_buckets_are_those_of_the_constructor() -> None:
    found = import_logging_data([DATA / "before_rank0.json", DATA / "before_rank1.json"])
    assert found.summary["bucket_bytes"] == [337_952]
    assert found.summary["buckets_rebuilt"] is False
    assert found.summary["averages_by_rank"] is None
    assert found.unknown["times"] == "no iteration was sampled yet"
    assert "those that DDP was made with" in found.unknown["rebuilt"]


def test_after_training_they_are_in_the_order_of_the_gradients() -> None:
    found = import_logging_data([DATA / "after_rank0.json", DATA / "after_rank1.json"])
    expected = {
        "dicts": 2, "ranks": 2, "ranks_in_it": [0, 1], "backend": "gloo", "module": "Sequential", "iteration": 10,
        "buckets": 2, "buckets_rebuilt": True, "bucket_bytes": [271_392, 66_560], "bucket_cap_bytes": 104_857,
        "constructed_bucket_bytes": [337_952], "parameters": 6, "parameter_bytes": 337_952, "dtypes": "float",
        "ready_order": [5, 4, 3, 2, 1, 0], "parameters_by_bucket": [[5, 4, 3, 2], [1, 0]],
    }  # fmt: skip
    assert {key: found.summary[key] for key in expected} == expected
    assert found.summary["averages_by_rank"][0] == {
        "rank": 0, "forward_s": 0.00126506, "backward_s": 0.001054745, "communication_s": 0.00509937,
        "overlap_s": 0.000359976,
    }  # fmt: skip
    assert found.workload_csv == AFTER
    assert {"run", "ready", "names"} == set(found.unknown)


@pytest.mark.parametrize(
    "text",
    [
        (DATA / "after_rank0.txt").read_text(),
        "[rank0]: " + (DATA / "after_rank0.txt").read_text() + "[rank1]: " + (DATA / "after_rank1.txt").read_text(),
        json.dumps([logged(), logged(rank=1)]),
        json.dumps({"run": "x", "ddp": {"0": logged(), "1": logged(rank=1)}}),
        "\n".join(json.dumps(logged(rank=rank)) for rank in (0, 1)),
        pprint.pformat(logged(), width=40),
        "it's rank 0's " + str(logged()) + str(logged(rank=1)) + " {unfinished",
        str(logged(bucket_sizes=[337_952], rebuilt_bucket_sizes=[271_392, 66_560])),
        str(logged(bucket_sizes=337_952, has_rebuilt_buckets=None)),
    ],
    ids=["printed", "prefixes", "array", "nested", "lines", "pprint", "one line", "lists", "number"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_ways_to_keep_it(text: str, packed: bool, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    found = import_source(path, "auto")
    assert found.format == "ddp-logging"
    assert found.workload_csv == AFTER


def test_the_latest_of_a_rank_counts(tmp_path: Path) -> None:
    early = (DATA / "before_rank0.json").read_text()
    found = read(tmp_path, early, logged(), logged(rank=1), (DATA / "before_rank1.json").read_text())
    assert found.summary["dicts"] == 4
    assert [each["rank"] for each in found.summary["averages_by_rank"]] == [0, 1]
    assert found.workload_csv == AFTER


def test_several_types_give_bytes(tmp_path: Path) -> None:
    found = read(tmp_path, logged(dtypes="c10::Half, float"))
    assert found.workload_csv == "name,bytes\nbucket.1,66560\nbucket.0,271392\n"


def test_the_workload_is_read_back_whatever_the_module_is_called(tmp_path: Path) -> None:
    found = read(tmp_path, logged(module_name='a,"b}\n{', backend_name="x" * 10_000))
    path = tmp_path / "w.csv"
    path.write_text(found.workload_csv)
    tensors = read_csv(path, "w.csv")
    assert not tensors.problems
    assert [each.nbytes for each in tensors.tensors] == [271_392, 66_560], "in the order in which they are ready"
    assert len(found.summary["backend"]) == 200


def test_a_size_that_does_not_fit_32_bits_is_no_guess(tmp_path: Path) -> None:
    found = read(tmp_path, logged(rebuilt_bucket_sizes="-2147483648, 66560"))
    assert found.workload_csv is None
    assert found.unknown["workload"] == "a bucket of -2,147,483,648 bytes: PyTorch counted it in 32 bits"


def test_what_buckets_do_not_hold_and_hooks_are_said(tmp_path: Path) -> None:
    found = read(tmp_path, logged(total_parameter_size_bytes=400_000, comm_hook="fp16_compress_hook"))
    assert found.unknown["other_bytes"] == "buckets hold 337,952 B of the 400,000 B of parameters"
    assert "fp16_compress_hook" in found.unknown["sent"]


def test_ranks_with_other_buckets_are_named(tmp_path: Path) -> None:
    found = read(tmp_path, logged(), logged(rank=1, rebuilt_bucket_sizes="66560, 271392"))
    assert found.unknown["other_ranks"] == "rank 1 has other buckets than rank 0, whose buckets these are"


def test_a_cut_dict_is_said_and_the_others_are_read(tmp_path: Path) -> None:
    found = read(tmp_path, logged(), str(logged(rank=1))[:400])
    assert found.summary["dicts"] == 1
    assert "has no closing brace" in found.unknown["cut"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("hello", "begins with 'hello'"),
        ("{'bucket_sizes': '1'", "no closing brace"),
        ("{'bucket_sizes': '1, x'}", "bucket_sizes: 'x' is no whole number"),
        ("{'bucket_sizes': [1.5]}", "bucket_sizes: is no list of whole numbers"),
        ("{'bucket_sizes': __import__('os').getcwd()}", "neither JSON nor a dict of Python"),
        ("{'bucket_sizes': '1', 'world_size': -3}", "world_size: is no whole number from 0 to 1,048,576"),
        ("{'bucket_sizes': '1', 'rank': 1e400}", "rank: is no whole number"),
        ("{'bucket_sizes': " + "[" * 100_000 + "}", "nested too deep"),
        ("{'bucket_sizes': " + "9" * 100_000 + "}", "a number of absurd length"),
        ("{'bucket_sizes': '" + "1," * 200_000 + "1'}", "no model has more than"),
        ("'bucket_sizes': " * 50_000, "begins with"),
    ],
)
def test_what_is_none_is_one_error(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert len(caught.value.problems) == 1
    assert said in str(caught.value)


@pytest.mark.parametrize("key", ["world_size", "total_parameter_size_bytes", "num_parameter_tensors", "backend_name"])
def test_dicts_of_different_jobs_are_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="another job"):
        read(tmp_path, logged(), logged(rank=1, **{key: "nccl" if key == "backend_name" else 77}))


def test_which_parameters_are_in_a_bucket_is_null_where_it_is_not_said(tmp_path: Path) -> None:
    assert read(tmp_path, logged(rebuilt_per_bucket_param_indices=None)).summary["parameters_by_bucket"] is None
