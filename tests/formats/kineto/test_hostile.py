"""Wrong types anywhere, absurd numbers and sizes: one error, or a value that is not known; never a crash."""

from __future__ import annotations

import copy
import json
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordsim.errors import InputError
from coordsim.formats.kineto import import_traces
from tests.budget import examples
from tests.formats.kineto.test_causality import lagging
from tests.formats.kineto.test_passes import accumulated
from tests.formats.kineto.traces import event, read, step, trace
from tests.told import told_of

_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=12)
    | st.sampled_from(["[1, 2]", "[[[", "1e5", "-3", 10**300, "nccl:all_reduce", "ProfilerStep#3", [[]], [[[]]], [-1]]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6,
)  # fmt: skip
_WHOLE = trace([*lagging(2), *accumulated(2, [[3], [4]], steps=2)], 0, 2)


@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), _ANY), min_size=1, max_size=4))
def test_any_value_anywhere_is_refused_or_read(changes: list[tuple[int, int, Any]], tmp_path: Path) -> None:
    found = copy.deepcopy(_WHOLE)
    for which, key, value in changes:
        one = found["traceEvents"][which % len(found["traceEvents"])]
        into = one["args"] if which % 2 and isinstance(one.get("args"), dict) and one["args"] else one
        into[list(into)[key % len(into)]] = value
        if key % 7 == 0:
            found["distributedInfo"]["pg_config"] = value
    with suppress(InputError):
        result = read(tmp_path / "t.json", found)
        json.dumps(result.summary)
        if result.trace is not None:
            told_of(result.trace, result.facts)


@pytest.mark.parametrize("elements", [10**30, -5, "many", True, [3], 2.5, None])
def test_an_absurd_number_of_values_is_no_size(elements: Any, tmp_path: Path) -> None:
    events = [step(1, 0.0), event("cpu_op", "record_param_comms", 50.0, Collective_name="allreduce", dtype="Float",
                                  In_msg_nelems=elements, Out_msg_nelems=elements)]  # fmt: skip
    found = read(tmp_path / "t.json", trace(events))
    assert found.summary["collectives_per_step"] == 1
    assert found.summary["bytes_per_step"] is None


@pytest.mark.parametrize("nested", ['"Input Dims": ', '"correlation": '])
def test_arrays_nested_without_end_are_one_error(nested: str, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text('{"traceEvents": [{"ph": "X", "name": "nccl:x", "args": {' + nested + "[" * 10_000_000)
    tracemalloc.start()
    with pytest.raises(InputError, match="nested too deep"):
        import_traces([path])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_names_threads_and_ids_without_end_do_not_fill_the_memory(tmp_path: Path) -> None:
    kinds = ("nccl:x", "nccl:all_reduce", "multimem_all_reduce")
    events = [event("user_annotation" if place % 3 < 2 else "kernel", f"{kinds[place % 3]}{place}" + "z" * 2000, 5.0,
                    tid=f"t{place}") for place in range(6000)]  # fmt: skip
    path = tmp_path / "t.json"
    path.write_text(json.dumps(trace([step(1, 0.0), *events])))
    del events
    tracemalloc.start()
    found = import_traces([path])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16_000_000
    assert len(found.summary["not_read"]) <= 12
    assert found.summary["collectives_per_step"] == 2000


@pytest.mark.parametrize("digits", ["\u00b2", "\u0663", "1_0", " 7"])
def test_digits_of_other_alphabets_are_no_numbers(digits: str, tmp_path: Path) -> None:
    events = [step(1, 0.0), event("cpu_op", "record_param_comms", 50.0, Collective_name="allreduce", dtype="Float",
                                  In_msg_nelems=digits, Seq=digits, External_id=digits)]  # fmt: skip
    assert read(tmp_path / "t.json", trace(events)).summary["bytes_per_step"] is None


def test_a_file_of_step_marks_at_one_time_is_one_error(tmp_path: Path) -> None:
    events = [step(3, 0.0), step(4, 10.0)]
    with pytest.raises(InputError, match="marks step 4 inside another"):
        read(tmp_path / "t.json", trace(events))


def test_names_are_never_paths_and_long_ones_are_cut(tmp_path: Path) -> None:
    name = "nccl:../../etc/" + "x" * 10_000 + "all_reduce"
    kernel = event("kernel", "multimem_all_reduce" + "y" * 9000, 7.0)
    events = [step(1, 0.0), event("user_annotation", name, 5.0), kernel]
    found = read(tmp_path / "t.json", trace(events))
    assert all(len(one) < 100 for one in found.summary["not_read"])
    assert [one.name for one in tmp_path.iterdir()] == ["t.json"]


@pytest.mark.parametrize("bare", [False, True])
def test_events_of_another_program_are_no_trace_without_collectives(bare: bool, tmp_path: Path) -> None:
    events = [{"ph": "X", "cat": "FEE", "name": "main", "ts": 1, "dur": 2, "pid": 1, "tid": 1}] * 3
    with pytest.raises(InputError, match=r"none of its 3 events is one of PyTorch's profiler \(3 of category 'fee'\)"):
        read(tmp_path / "t.json", events if bare else {"traceEvents": events})
