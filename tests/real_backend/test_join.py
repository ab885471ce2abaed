"""Join: a rank without data takes part with neutral values until all have joined (docs/horovod.md 2.7)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

import real_backend as rb
from real_backend.errors import AfterJoin
from real_backend.job import environment_store
from tests.real_backend.shared_jobs import once
from tests.real_backend.watch import together, watched

LATE_S = 0.03


def first_joins(first: int, known: bool) -> int:
    """test_horovod_join_allreduce: ``first`` joins, the others still reduce two tensors; who joined last."""
    rank, ranks = rb.rank(), rb.size()
    names = [f"one {first} {known}", f"other {first} {known}"]
    shapes = [(2, 3), (3000,)]
    if known:
        for name, shape in zip(names, shapes, strict=True):
            rb.allreduce(torch.ones(shape), name)
    if rank == first:
        return rb.join()
    time.sleep(LATE_S)
    total = sum(each + 1 for each in range(ranks) if each != first)
    handles = [
        rb.allreduce_async(torch.full(shape, rank + 1.0), name) for name, shape in zip(names, shapes, strict=True)
    ]
    for handle, shape in zip(handles, shapes, strict=True):
        assert torch.equal(handle.wait(), torch.full(shape, total / ranks))
    found = rb.allreduce(torch.full((2,), rank + 1), f"highest {first} {known}", rb.Min)
    assert found.tolist() == [1 + (first == 0)] * 2, "a minimum is not won by zeros"
    return join_as_last(rank == (first + 1) % ranks, f"{first} {known}", ranks - 2)


def join_as_last(last: bool, key: str, others: int) -> int:
    """``last``: this rank joins when ``others`` have done so, who call this, too."""
    store = environment_store(rb.rank(), rb.size())
    while last and store.add(key, 0) < others:
        time.sleep(0.002)
    time.sleep(LATE_S * last)
    handle = rb.default_engine().join()
    store.add(key, not last)
    return int(handle.wait())


def nobody_to_stand_in(operation: str, known: bool) -> tuple[str, int]:
    """What zeros cannot stand in for fails on the others; join still returns."""
    rank, ranks = rb.rank(), rb.size()
    name = f"{operation} {known}"
    calls: dict[str, Callable[[], Any]] = {
        "allgather": lambda: rb.allgather(torch.ones(2), name),
        "broadcast": lambda: rb.broadcast(torch.ones(2), 0, name),
        "reducescatter": lambda: rb.reducescatter(torch.ones(4), name),
    }
    if known:
        calls[operation]()
    if rank == ranks - 1:
        return "", rb.join()
    time.sleep(LATE_S)
    text = f"{operation} of '{operation}.{name}': a rank that has joined has no data for it"
    with pytest.raises(rb.CollectiveFailed, match=text):
        calls[operation]()
    assert rb.allreduce(torch.ones(2), f"beside {name}", rb.Sum).tolist() == [ranks - 1.0] * 2
    return text, rb.join()


def kinds_of_values() -> None:
    """The joined rank's neutral values, by element type and reduction; groups; a barrier."""
    rank, ranks = rb.rank(), rb.size()
    if rank == 0:
        rb.join()
        return
    time.sleep(LATE_S)
    others = range(1, ranks)
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int16, torch.int64):
        mine = torch.full((5,), rank + 1).to(dtype)
        expected = {rb.Sum: sum(r + 1 for r in others), rb.Min: 2, rb.Max: ranks}
        for op, value in expected.items():
            assert rb.allreduce(mine, f"{dtype} {op.name}", op).tolist() == [value] * 5
    halved = rb.allreduce(torch.full((3,), 4), "scaled", rb.Product, prescale=0.5, postscale=3.0)
    assert halved.tolist() == [3 * 2 ** (ranks - 1)] * 3
    assert rb.allreduce(torch.tensor([True]), "bools", rb.Min).tolist() == [True]
    found = rb.grouped_allreduce([torch.ones(2), torch.ones(700)], "group", rb.Sum)
    assert [each.sum().item() for each in found] == [2.0 * (ranks - 1), 700.0 * (ranks - 1)]
    rb.barrier("while one has joined")
    rb.join()


def refused_after_join() -> None:
    rank, ranks = rb.rank(), rb.size()
    store = environment_store(rank, ranks)
    if rank == ranks - 1:
        while store.add("refused", 0) < ranks - 1:
            time.sleep(0.002)
        rb.join()
        return
    handle = rb.default_engine().join()
    with pytest.raises(AfterJoin, match=r"'allreduce\.x' was submitted after this rank had joined"):
        rb.allreduce(torch.ones(1), "x")
    with pytest.raises(rb.DuplicateName):
        rb.join()
    store.add("refused", 1)
    handle.wait()


def joined_with_something_pending() -> int:
    """A rank's own request, made before it joined, keeps its data."""
    rank, ranks = rb.rank(), rb.size()
    if rank == 0:
        handle = rb.allreduce_async(torch.full((2,), 10.0), "pending", rb.Sum)
        last = rb.join()
        assert handle.wait().tolist() == [10.0 + ranks - 1] * 2
        return last
    time.sleep(LATE_S)
    assert rb.allreduce(torch.ones(2), "pending", rb.Sum).tolist() == [10.0 + ranks - 1] * 2
    return rb.join()


def everything() -> dict[str, Any]:
    """All of it in one job: after each join everybody has data again."""
    rb.init()
    ranks = rb.size()
    found: dict[str, Any] = {}
    for known in (False, True):
        found[f"allreduce {known}"] = [first_joins(first, known) for first in range(ranks)]
        found[f"stand in {known}"] = [
            nobody_to_stand_in(operation, known) for operation in ("allgather", "broadcast", "reducescatter")
        ]
    kinds_of_values()
    refused_after_join()
    found["pending"] = joined_with_something_pending()
    assert rb.allreduce(torch.ones(1), "afterwards", rb.Sum).item() == ranks
    rb.shutdown()
    return found


JOBS: list[tuple[int, dict[str, str]]] = [
    (2, {}), (4, {}), (4, {"COORDSIM_RADIX": "2", "COORDSIM_CYCLE_TIME": "1ms"}),
    (2, {"COORDSIM_CONTROL_PLANE": "coordinator", "COORDSIM_SMALL": "0"}),
    (4, {"COORDSIM_CONTROL_PLANE": "hierarchical", "COORDSIM_RADIX": "2"}),
]  # fmt: skip
every_job = pytest.mark.parametrize(
    ("ranks", "env"), JOBS, ids=["2", "4", "4 in a tree, every ms", "2, coordinator, gloo", "4, hierarchical"]
)


@every_job
@pytest.mark.parametrize("known", [False, True], ids=["new", "cached"])
def test_join_allreduce_averages_over_all_and_names_the_last(ranks: int, env: dict[str, str], known: bool) -> None:
    """Every rank joins first once; all are told the same last rank, which is not the first."""
    by_rank = [found[f"allreduce {known}"] for found in once(ranks, everything, env)]
    assert by_rank == [by_rank[0]] * ranks
    assert by_rank[0] == [(first + 1) % ranks for first in range(ranks)]


@every_job
@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
def test_what_zeros_cannot_stand_in_for_fails_and_join_returns(ranks: int, env: dict[str, str], known: bool) -> None:
    by_rank = [found[f"stand in {known}"] for found in once(ranks, everything, env)]
    for attempts in zip(*by_rank, strict=True):
        texts = [text for text, _ in attempts]
        assert all(texts[:-1])
        assert not texts[-1]
        lasts = {last for _, last in attempts}
        assert len(lasts) == 1
        assert ranks - 1 not in lasts


@every_job
def test_a_request_made_before_the_join_keeps_its_data(ranks: int, env: dict[str, str]) -> None:
    assert len({found["pending"] for found in once(ranks, everything, env)}) == 1


def join_alone() -> int:
    rb.init()
    return rb.join()


def test_one_rank_alone_joins_itself() -> None:
    assert once(1, join_alone) == [0]


def keep_cache() -> tuple[list[str], list[str], int]:
    """What is agreed while somebody has joined is not cached; what was cached before stays."""
    engine, watch = watched()
    rank = engine.rank
    together(engine, {"known": torch.ones(2)}).wait()
    if rank == 1:
        engine.join().wait()
    else:
        time.sleep(LATE_S)
        together(engine, {"known": torch.ones(2)}).wait()
        together(engine, {"new": torch.ones(2)}).wait()
        engine.join().wait()
    during = watch.names_by_bit
    slow = watch.during(lambda: together(engine, {"known": torch.ones(2)}).wait())["slow_cycles"]
    together(engine, {"new": torch.ones(2)}).wait()
    after = watch.names_by_bit
    engine.shut_down()
    return during, after, slow


def test_the_cache_learns_nothing_while_somebody_has_joined() -> None:
    assert once(2, keep_cache) == [(["known"], ["known", "new"], 0)] * 2
