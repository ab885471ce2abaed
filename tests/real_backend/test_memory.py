"""Reductions over the memory of one node: shares, order of sums, and what happens where it cannot be used."""

from __future__ import annotations

import os
import signal
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import real_backend as rb
from real_backend.data import memory
from tests.real_backend.processes import Job, run, tell

ONLY_MEMORY = {"COORDSIM_SMALL": "0"}


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=12), st.sampled_from([1, 2, 8]), st.integers(1, 5),
    st.integers(1, 6), st.integers(1, 40),
)  # fmt: skip
def test_shares_hold_every_element_once_in_order(
    sizes: list[int], element_bytes: int, ranks: int, parts_at_once: int, limit: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "PARTS_AT_ONCE", parts_at_once)
        patch.setattr(memory, "BLOCK_BYTES", limit * element_bytes)
        cut = memory.plan(sizes, element_bytes, ranks)
    begins = list(accumulate(sizes, initial=0))
    for by_rank in (cut.small, cut.large):
        elements = [
            begins[part.tensor] + index
            for blocks in by_rank for block in blocks for part in block.parts for index in range(part.start, part.stop)
        ]  # fmt: skip
        assert elements == list(range(sum(sizes)))
        counts = [sum(block.elements for block in blocks) for blocks in by_rank]
        assert max(counts) - min(counts) <= 1
    for blocks in cut.small:
        for block in blocks:
            assert len(block.parts) <= parts_at_once
            assert block.elements <= limit
            ends = list(accumulate((part.stop - part.start for part in block.parts), initial=0))
            assert [part.at for part in block.parts] == ends[:-1]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_spans_are_addresses_and_bytes_of_parts(sizes: list[int]) -> None:
    addresses = np.arange(1, len(sizes) + 1) * 1000
    for blocks in memory.plan(sizes, 4, 2).small:
        for block in blocks:
            assert block.spans(addresses).tolist() == [
                [1000 * (part.tensor + 1) + 4 * part.start, 4 * (part.stop - part.start)] for part in block.parts
            ]


def test_a_process_reads_itself_and_no_process_that_is_gone() -> None:
    mine, copy = torch.arange(6, dtype=torch.int64), torch.zeros(6, dtype=torch.int64)
    there = np.array([[mine.data_ptr() + 16, 24], [mine.data_ptr(), 8]])
    memory.read_memory(os.getpid(), np.array([[copy.data_ptr(), 32]]), there)
    assert copy.tolist() == [2, 3, 4, 0, 0, 0]
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(ProcessLookupError):
        memory.read_memory(child, np.array([[copy.data_ptr(), 32]]), there)
    with pytest.raises(OSError, match="Bad address"):
        memory.read_memory(os.getpid(), np.array([[copy.data_ptr(), 8]]), np.array([[8, 8]]))


def parts_of(rank: int, sizes: list[int], dtype: torch.dtype) -> list[torch.Tensor]:
    """Values whose sums depend on the order in which they are added."""
    generator = torch.Generator().manual_seed(rank)
    return [(torch.randn(size, generator=generator) * 10.0 ** (rank % 3)).to(dtype) for size in sizes]


def sum_in_rank_order(sizes: list[int], dtype: torch.dtype) -> str:
    engine = rb.init()
    mine = parts_of(rb.rank(), sizes, dtype)
    for _ in range(2):
        rb.grouped_allreduce_([tensor.clone() for tensor in mine], "x", rb.Sum)
    found = rb.grouped_allreduce(mine, "y", rb.Sum)
    wanted = parts_of(0, sizes, dtype)
    for rank in range(1, rb.size()):
        for total, part in zip(wanted, parts_of(rank, sizes, dtype), strict=True):
            total.add_(part)
    for total, tensor in zip(wanted, found, strict=True):
        assert torch.equal(total, tensor)
    for tensor, before in zip(mine, parts_of(rb.rank(), sizes, dtype), strict=True):
        assert torch.equal(tensor, before)
    return type(engine._data._memory).__name__  # type: ignore[attr-defined]


@pytest.mark.parametrize("ranks", [2, 3, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_sums_are_in_rank_order_to_the_bit(ranks: int, dtype: torch.dtype) -> None:
    sizes = [300_000, 1, 0, 17, 70_001, 5]
    assert run(ranks, sum_in_rank_order, sizes, dtype, env=ONLY_MEMORY) == ["NodeMemory"] * ranks


def the_same_whatever_is_fused() -> None:
    rb.init()
    sizes = [5000, 3, 20_000, 77]
    together = rb.grouped_allreduce(parts_of(rb.rank(), sizes, torch.float32), "x", rb.Average)
    alone = [rb.allreduce(part, f"y{i}") for i, part in enumerate(parts_of(rb.rank(), sizes, torch.float32))]
    assert all(torch.equal(one, other) for one, other in zip(together, alone, strict=True))


def test_fusion_does_not_change_a_bit() -> None:
    run(4, the_same_whatever_is_fused, env=ONLY_MEMORY)


def refuse_on_one_rank() -> str:
    if os.environ["RANK"] == "1":
        def refused(*_: object) -> None:
            raise PermissionError("not allowed")

        memory.read_memory = refused
    engine = rb.init()
    assert rb.allreduce(torch.ones(100_000), "x", rb.Sum).tolist() == [3.0] * 100_000
    return type(engine._data._memory).__name__  # type: ignore[attr-defined]


def test_where_one_rank_may_not_look_all_ranks_use_gloo() -> None:
    assert run(3, refuse_on_one_rank, env=ONLY_MEMORY) == ["NoneType"] * 3


def nodes_apart() -> str:
    engine = rb.init()
    rb.allreduce(torch.ones(100_000), "x")
    return type(engine._data._memory).__name__  # type: ignore[attr-defined]


def test_ranks_of_several_nodes_do_not_try() -> None:
    assert run(2, nodes_apart, env={**ONLY_MEMORY, "LOCAL_WORLD_SIZE": "1"}) == ["NoneType"] * 2


def reduce_until_told() -> str:
    rb.init()
    values = torch.ones(3_000_000)
    rb.allreduce_(values, "x")
    tell(f"rank {rb.rank()} runs")
    try:
        while True:
            rb.allreduce_(values, "x")
    except rb.PeerLost as error:
        return str(error)


@pytest.mark.parametrize("victim", [0, 2])
def test_a_rank_that_is_killed_while_others_read_its_memory_is_lost(victim: int) -> None:
    job = Job(3, reduce_until_told, env=ONLY_MEMORY)
    job.wait_for(*(f"rank {rank} runs" for rank in range(3)))
    job.kill(victim, signal.SIGKILL)
    for rank, outcome in enumerate(job.outcomes()):
        if rank != victim:
            assert f"rank {victim} was lost" in outcome.result
