"""Process sets: an engine of its own over some of the ranks, beside the one over all."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest
import torch

import real_backend as rb
from real_backend.engine.assembly import assemble
from real_backend.engine.engine import Engine
from real_backend.engine.settings import settings_from
from real_backend.job import environment_store
from tests.real_backend.processes import is_told, run, tell, wait_until
from tests.real_backend.shared_jobs import once


def process_set(name: str, members: list[int]) -> Engine | None:
    """This rank's engine of the set, None when it is no member; members have the ranks in which they are listed."""
    rank = int(os.environ["RANK"])
    if rank not in members:
        return None
    store = environment_store(rank, int(os.environ["WORLD_SIZE"]))
    engine = assemble(settings_from(), store, members.index(rank), len(members), job=name)
    engine.start()
    return engine


def leave(*engines: Engine | None) -> None:
    for engine in engines:
        if engine is not None:
            engine.shut_down()
    rb.shutdown()


@dataclass
class Sets:
    """What one rank of four found out."""

    zero_came: bool
    """Whether rank 0 had come when this rank left its set's barrier."""
    sums: tuple[float, float]
    """Of one name in this rank's half, and over all ranks."""
    gathered: list[int]
    root: float
    shifted: tuple[int, int]
    """Rank and sum in a set whose ranks are in another order."""
    slow: int
    """Slow cycles of the set once it knew its tensors."""
    counters: tuple[int, int]
    """Unnamed operations over all ranks, after the odd set alone had some."""


def work_in_halves() -> Sets:
    rb.init()
    rank = rb.rank()
    odd, even = process_set("odd", [1, 3]), process_set("even", [0, 2])
    mine = odd or even
    assert mine is not None
    assert (mine.rank, mine.ranks) == (rank // 2, 2)
    rb.barrier("all are here")
    if rank == 0:
        wait_until("rank 1 has left its barrier")
        tell("rank 0 comes")
    rb.barrier(engine=mine)
    if rank == 1:
        tell("rank 1 has left its barrier")
    zero_came = is_told("rank 0 comes")

    half = rb.allreduce_async(torch.tensor([float(rank)]), "x", rb.Sum, engine=mine)
    everybody = rb.allreduce_async(torch.tensor([float(rank)]), "x", rb.Sum)
    sums = half.wait().item(), everybody.wait().item()
    if odd is not None:
        assert rb.allreduce(torch.ones(2, 2), "y", engine=odd).shape == (2, 2)
        assert rb.allreduce(torch.ones(3), engine=odd).shape == (3,)
    else:
        assert rb.allgather(torch.ones(1, dtype=torch.int8), "y", engine=even).shape == (2,)
    unnamed = rb.allreduce(torch.ones(1), op=rb.Sum).item(), rb.allreduce(torch.ones(2), op=rb.Sum).sum().item()
    gathered = rb.allgather(torch.tensor([rank]), "ranks", engine=mine).tolist()
    root = rb.broadcast(torch.tensor([float(rank)]), 1, "root", engine=mine).item()
    with pytest.raises(ValueError, match="root rank 2: there are ranks 0 to 1"):
        rb.broadcast(torch.ones(1), 2, engine=mine)

    turned = process_set("turned", [3, 2, 0])
    shifted = (-1, -1) if turned is None else (
        turned.rank, int(rb.allreduce(torch.tensor(rank), "z", rb.Sum, engine=turned).item())
    )  # fmt: skip
    before = mine.counters.slow_cycles
    for _ in range(10):
        rb.allreduce(torch.tensor([float(rank)]), "x", rb.Sum, engine=mine)
    slow = mine.counters.slow_cycles - before
    leave(odd, even, turned)
    return Sets(zero_came, sums, gathered, root, shifted, slow, (int(unnamed[0]), int(unnamed[1])))


def test_b9_a_sets_barrier_waits_for_its_own_ranks_only() -> None:
    found: list[Sets] = once(4, work_in_halves)
    assert [found[rank].zero_came for rank in (0, 2)] == [True, True]  # and rank 0 waited for rank 1's


def test_equal_names_in_two_sets_are_independent() -> None:
    found: list[Sets] = once(4, work_in_halves)
    assert [each.sums for each in found] == [(2, 6), (4, 6), (2, 6), (4, 6)]
    assert [each.slow for each in found] == [0] * 4


def test_ranks_and_roots_are_those_of_the_set() -> None:
    found: list[Sets] = once(4, work_in_halves)
    assert [each.gathered for each in found] == [[0, 2], [1, 3], [0, 2], [1, 3]]
    assert [each.root for each in found] == [2, 3, 2, 3]
    assert [each.shifted for each in found] == [(2, 5), (-1, -1), (1, 5), (0, 5)]


def test_unnamed_operations_are_counted_by_set() -> None:
    """The odd set had one that the even set had not; over all ranks they still find each other."""
    found: list[Sets] = once(4, work_in_halves)
    assert [each.counters for each in found] == [(4, 8)] * 4


def leave_one_by_one() -> list[float]:
    """A set that ends takes no other with it, and may be made anew under its name."""
    rb.init()
    rank = rb.rank()
    found = []
    for attempt in range(2):
        odd = process_set("odd", [1])
        pair = process_set("pair", [0, 1])
        if odd is not None:
            assert rb.allreduce(torch.ones(1), "x", rb.Sum, engine=odd).item() == 1
            odd.shut_down()
        assert pair is not None
        found.append(rb.allreduce(torch.full((1,), attempt + 1.0), "x", rb.Sum, engine=pair).item())
        if rank == attempt:
            pair.shut_down()
        else:
            with pytest.raises((rb.ShutDown, rb.NotRunning)):
                rb.allreduce(torch.ones(1), "y", engine=pair)
            pair.shut_down()
        found.append(rb.allreduce(torch.ones(1), "x", rb.Sum).item())
    rb.shutdown()
    return found


def test_sets_end_and_begin_independently() -> None:
    assert run(2, leave_one_by_one) == [[2.0, 2.0, 4.0, 2.0]] * 2
