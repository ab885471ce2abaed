"""Operations on tensors of every kind: element types, shapes, strides, sizes, alone and in groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import pytest
import torch

import real_backend as rb
from coordsim.protocol.messages import ReduceOp
from real_backend.data.dtypes import PROTOCOL
from real_backend.data.reductions import scale
from tests.real_backend.shared_jobs import once

Shape = tuple[int, ...]

SMALL = {"COORDSIM_SMALL": "2kB"}
BIG = (3000,)
"""Of any type more than that, over all ranks: not through the control links, but over the node's memory or gloo."""
SHAPES: tuple[Shape, ...] = ((), (0,), (5,), (2, 0, 3), (3, 4), BIG)
JOBS = {
    "1": (1, SMALL),
    "2": (2, SMALL),
    "2, gloo only": (2, {**SMALL, "COORDSIM_FUSION_THRESHOLD": "0"}),
    "2, no memory": (2, {**SMALL, "COORDSIM_NODE_MEMORY": "off"}),
    "4": (4, SMALL),
    "4, no memory": (4, {**SMALL, "COORDSIM_NODE_MEMORY": "off"}),
    "4, a tree": (4, {**SMALL, "COORDSIM_RADIX": "2"}),
}


def values(dtype: torch.dtype, rank: int, shape: Shape) -> torch.Tensor:
    """Small whole numbers, of both signs where there are such; sums and products over four ranks are exact."""
    index = torch.arange(prod(shape)).view(shape)
    if dtype is torch.bool:
        return (index + rank) % 3 == 0
    found = index % 2 + 1 + rank % 2
    return (found * torch.where(index % 3 == 0, -1, 1) if dtype.is_signed else found).to(dtype)


def reduced(op: ReduceOp, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """What ``op`` makes of all ranks' tensors, computed in the widest type."""
    dtype = parts[0].dtype
    stack = torch.stack([part.to(torch.float64 if dtype.is_floating_point else torch.int64) for part in parts])
    if op is rb.Average:
        mean = stack.sum(0) / len(parts)
        return (mean if dtype.is_floating_point else mean.trunc()).to(dtype)
    if not stack.numel():
        return parts[0].clone()
    by_op: dict[ReduceOp, Callable[[torch.Tensor], torch.Tensor]] = {
        rb.Sum: lambda all: all.sum(0), rb.Min: lambda all: all.amin(0), rb.Max: lambda all: all.amax(0),
        rb.Product: lambda all: all.prod(0),
    }  # fmt: skip
    return by_op[op](stack).to(dtype)


class Checks:
    """Compares exactly; what differs is kept in words, because tensors do not go back to the test's process."""

    def __init__(self) -> None:
        rb.init()
        self.rank, self.ranks = rb.rank(), rb.size()
        self.made = 0
        self.wrong: list[str] = []

    def equal(self, what: str, found: torch.Tensor, wanted: torch.Tensor) -> None:
        self.made += 1
        if found.dtype != wanted.dtype or found.shape != wanted.shape or not torch.equal(found, wanted):
            self.wrong.append(f"{what}: {found.flatten()[:4].tolist()} {found.dtype} {list(found.shape)}, "
                              f"not {wanted.flatten()[:4].tolist()} {wanted.dtype} {list(wanted.shape)}")  # fmt: skip

    def all_of(self, make: Callable[[int], torch.Tensor]) -> list[torch.Tensor]:
        return [make(rank) for rank in range(self.ranks)]


def reduce_everything(checks: Checks) -> None:
    """All types, operations and shapes: all at once, again from the cache, and one by one along with the bit vector."""
    cases = [
        (f"{dtype} {op.name} {list(shape)}", op, checks.all_of(lambda rank, d=dtype, s=shape: values(d, rank, s)))
        for dtype in PROTOCOL for shape in SHAPES
        for op in ((rb.Sum, rb.Min, rb.Max, rb.Product) if dtype is torch.bool else ReduceOp)
    ]  # fmt: skip
    for again in range(2):
        handles = [rb.allreduce_async(parts[checks.rank], name, op) for name, op, parts in cases]
        for handle, (name, op, parts) in zip(handles, cases, strict=True):
            checks.equal(f"{name}, time {again}", handle.wait(), reduced(op, parts))
    few = [
        case for case in cases
        if case[2][0].dtype in (torch.float32, torch.float16, torch.int64, torch.bool) and case[2][0].dim() < 2
        and case[1] in (rb.Sum, rb.Max)
    ]  # fmt: skip
    for again in range(3):
        for name, op, parts in few:
            checks.equal(f"{name} alone, time {again}", rb.allreduce(parts[checks.rank], name, op), reduced(op, parts))


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "transposed": lambda flat: flat.view(4, 6).t(),
    "every other": lambda flat: flat[::2],
    "expanded": lambda flat: flat[:4].view(4, 1).expand(4, 3),
    "channels last": lambda flat: flat.view(1, 2, 3, 4).to(memory_format=torch.channels_last),
    "a column": lambda flat: flat.view(4, 6)[:, 1],
}


def reduce_strided(checks: Checks) -> None:
    """New tensors, in place, into a given output; strides are kept and inputs are not touched."""
    for name, layout in LAYOUTS.items():
        flats = checks.all_of(lambda rank: values(torch.float32, rank, (24,)))
        wanted = reduced(rb.Average, [layout(flat) for flat in flats])
        mine = layout(flats[checks.rank].clone())
        before = mine.clone()
        checks.equal(name, rb.allreduce(mine, name), wanted)
        checks.equal(f"{name}: input", mine, before)
        output = torch.empty(wanted.shape).contiguous()
        assert rb.allreduce(mine, f"{name} out", output=output) is output
        checks.equal(f"{name}: output", output, wanted)
        checks.equal(f"{name}: broadcast", rb.broadcast(mine, checks.ranks - 1, name), layout(flats[-1]))
        checks.equal(f"{name}: gathered", rb.allgather(mine, name), torch.cat([layout(flat) for flat in flats]))
        if name != "expanded":
            strides = mine.stride()
            for again in range(3):
                mine.copy_(before)
                assert rb.allreduce_(mine, f"{name} in place") is mine
                checks.equal(f"{name}: in place, time {again}", mine, wanted)
            assert mine.stride() == strides
            rb.broadcast_(mine, 0, f"{name} in place")
            checks.equal(f"{name}: broadcast in place", mine, wanted)


def reduce_groups(checks: Checks) -> None:
    shapes: tuple[Shape, ...] = ((), BIG, (0,), (3, 4), (5,))
    for dtypes in ((torch.float32,), (torch.float16, torch.int64, torch.float32)):
        for op in (rb.Average, rb.Sum):
            kinds = [(shape, dtype) for shape in shapes for dtype in dtypes]
            by_rank = checks.all_of(lambda rank, k=kinds: [values(d, rank, s) for s, d in k])  # type: ignore[misc]
            wanted = [reduced(op, parts) for parts in zip(*by_rank, strict=True)]
            name = f"group of {len(kinds)} {op.name}"
            for again in range(2):
                for found, want in zip(rb.grouped_allreduce(by_rank[checks.rank], name, op), wanted, strict=True):
                    checks.equal(f"{name}, time {again}", found, want)
            mine = [tensor.clone() for tensor in by_rank[checks.rank]]
            assert all(one is other for one, other in zip(rb.grouped_allreduce_(mine, name, op), mine, strict=True))
            for found, want in zip(mine, wanted, strict=True):
                checks.equal(f"{name} in place", found, want)
    gathered = rb.grouped_allgather([torch.full((checks.rank + each, 2), each) for each in (0, 1, 2)], "gathered")
    for each, found in enumerate(gathered):
        checks.equal(f"gathered {each}", found, torch.full((sum(range(checks.ranks)) + each * checks.ranks, 2), each))


def scale_values(checks: Checks) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.int32, torch.uint8):
        for shape in ((7,), BIG):
            parts = checks.all_of(lambda rank, d=dtype, s=shape: values(d, rank, s) * 5)
            halves = [(part.double() * 0.5).to(dtype) for part in parts]
            wanted = (reduced(rb.Sum, halves).double() * 3).to(dtype)
            name = f"scaled {dtype} {list(shape)}"
            for again in range(3):
                found = rb.allreduce(parts[checks.rank], name, rb.Sum, prescale=0.5, postscale=3.0)
                checks.equal(f"{name}, time {again}", found, wanted)
            wanted = (reduced(rb.Max, [(part.double() * 2).to(dtype) for part in parts]).double() * 0.5).to(dtype)
            found = rb.allreduce(parts[checks.rank], f"{name} max", rb.Max, prescale=2.0, postscale=0.5)
            checks.equal(f"{name} max", found, wanted)
    large = torch.tensor([(1 << 60) + 1, -(1 << 53) - 1])
    checks.equal("average of large numbers", rb.allreduce(large, "large"), large)


def scatter(checks: Checks) -> None:
    """Uneven rows go to the low ranks; there may be fewer rows than ranks, or none."""
    for dtype in (torch.float32, torch.int16, torch.float64):
        for rows in (0, 1, 6, 7, 1001):
            parts = checks.all_of(lambda rank, d=dtype, r=rows: values(d, rank, (r, 3)))
            each, more = divmod(rows, checks.ranks)
            first = checks.rank * each + min(checks.rank, more)
            last = first + each + (checks.rank < more)
            for op in (rb.Average, rb.Sum, rb.Max):
                name = f"scattered {dtype} {rows} {op.name}"
                wanted = reduced(op, parts)[first:last]
                checks.equal(name, rb.reducescatter(parts[checks.rank], name, op), wanted)
                grouped = rb.grouped_reducescatter([parts[checks.rank], parts[checks.rank]], name, op)
                checks.equal(f"{name}, first of two", grouped[0], wanted)
                checks.equal(f"{name}, second of two", grouped[1], wanted)
    with pytest.raises(rb.CollectiveFailed, match=r"reducescatter of 'reducescatter.scalar' needs at least one dim"):
        rb.reducescatter(torch.tensor(1.0), "scalar")
    with pytest.raises(rb.CollectiveFailed, match=r"allgather of 'allgather.scalar' needs at least one dimension"):
        rb.allgather(torch.tensor(1.0), "scalar")


def move(checks: Checks) -> None:
    """Broadcasts from every root; gathers of as many rows as the rank's number."""
    roots = [
        (f"{dtype} {list(shape)} of {root}", root, values(dtype, checks.rank, shape), values(dtype, root, shape))
        for dtype in PROTOCOL for shape in SHAPES for root in range(checks.ranks)
    ]  # fmt: skip
    handles = [rb.broadcast_async(mine, root, name) for name, root, mine, _ in roots]
    for handle, (name, _, _, wanted) in zip(handles, roots, strict=True):
        checks.equal(name, handle.wait(), wanted)
    rows = [
        (f"{dtype} rows of {list(row)}", checks.all_of(lambda rank, d=dtype, r=row: values(d, rank, (rank, *r))))
        for dtype in PROTOCOL for row in ((), (2,), (0,), (500,))
    ]  # fmt: skip
    for again in range(2):
        handles = [rb.allgather_async(parts[checks.rank], name) for name, parts in rows]
        for handle, (name, parts) in zip(handles, rows, strict=True):
            checks.equal(f"{name}, time {again}", handle.wait(), torch.cat(parts))


def share_objects(checks: Checks) -> None:
    last = checks.ranks - 1
    value = {"epoch": 3, "names": ["a", "ö", ""], "lr": 0.1, "none": None, "rank": checks.rank, "on": True}
    assert rb.broadcast_object(value, last) == {**value, "rank": last}
    assert rb.broadcast_object([], 0) == []
    torch.manual_seed(checks.rank)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    model[1].num_batches_tracked += checks.rank
    rb.broadcast_parameters(model.state_dict(), last)
    torch.manual_seed(last)
    theirs = torch.nn.Linear(3, 2)
    checks.equal("weights", model[0].weight.detach(), theirs.weight.detach())
    checks.equal("batches", model[1].num_batches_tracked, torch.tensor(last))
    rb.broadcast_parameters(theirs.named_parameters())
    with pytest.raises(ValueError, match=f"root rank {checks.ranks}: there are ranks 0 to {last}"):
        rb.broadcast(torch.ones(1), checks.ranks)


def ignore_autograd(checks: Checks) -> None:
    """Parameters may be reduced in place; results are no part of a graph."""
    for elements in (4, 3000):
        parameter = torch.nn.Parameter(torch.full((elements,), float(checks.rank)))
        mean = torch.full((elements,), sum(range(checks.ranks)) / checks.ranks)
        found = rb.allreduce(parameter, f"parameter {elements}")
        assert not found.requires_grad
        checks.equal("of a parameter", found, mean)
        rb.allreduce_(parameter, f"parameter in place {elements}")
        checks.equal("parameter in place", parameter.detach(), mean)
        strided = torch.nn.Parameter(torch.full((elements, 2), float(checks.rank)).t())
        rb.broadcast_(strided, 0, f"strided parameter {elements}")
        checks.equal("strided parameter", strided.detach(), torch.zeros(2, elements))
        graph = parameter * 2
        rb.grouped_allreduce_([graph, parameter], f"part of a graph {elements}", rb.Max)


def refuse(checks: Checks) -> None:
    """What this rank can see to be wrong raises here and now, and nobody else is involved."""
    ones = torch.ones(3)
    wrong: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (TypeError, "complex64 does not travel", lambda: rb.allreduce(torch.ones(3, dtype=torch.complex64))),
        (TypeError, "sparse_coo on cpu does not travel", lambda: rb.allreduce(torch.eye(3).to_sparse())),
        (TypeError, "on meta does not travel", lambda: rb.broadcast(torch.ones(3, device="meta"), 0)),
        (TypeError, "op 'sum' is none of", lambda: rb.allreduce(ones, op="sum")),  # type: ignore[arg-type]
        (TypeError, "bools have no average", lambda: rb.allreduce(torch.tensor([True]))),
        (TypeError, "bools have no average", lambda: rb.allreduce(torch.tensor([True]), op=rb.Max, prescale=2.0)),
        (TypeError, "real number", lambda: rb.allreduce(ones, prescale=None)),
        (ValueError, r"shape \[2\], not \[3\]", lambda: rb.allreduce(ones, output=torch.ones(2))),
        (TypeError, "output is torch.int32", lambda: rb.allreduce(ones, output=torch.ones(3, dtype=torch.int32))),
        (ValueError, "share memory", lambda: rb.allreduce_(torch.ones(1).expand(3))),
        (ValueError, "at least one tensor", lambda: rb.grouped_allreduce([])),
        (ValueError, "a name may have 4096 bytes", lambda: rb.allreduce(ones, "n" * 5000)),
    ]
    for error, text, call in wrong:
        with pytest.raises(error, match=text):
            call()
        checks.made += 1
    checks.equal("afterwards", rb.allreduce(ones, "refused before", rb.Sum), ones * checks.ranks)


PARTS = (
    reduce_everything, reduce_strided, reduce_groups, scale_values, scatter, move, share_objects, ignore_autograd,
    refuse,
)  # fmt: skip


def perform() -> dict[str, tuple[int, list[str]]]:
    """By part: comparisons made, and what was wrong."""
    checks = Checks()
    found = {}
    for part in PARTS:
        checks.made, checks.wrong = 0, []
        part(checks)
        found[part.__name__] = checks.made, checks.wrong[:5]
    rb.shutdown()
    return found


def look_at(job: str, part: Callable[[Checks], None], at_least: int) -> None:
    ranks, env = JOBS[job]
    for of_rank in once(ranks, perform, env):
        made, wrong = of_rank[part.__name__]
        assert wrong == []
        assert made >= at_least


every_job = pytest.mark.parametrize("job", JOBS)


@every_job
def test_all_types_and_reductions(job: str) -> None:
    look_at(job, reduce_everything, 10 * 4 * 6 * 2)


@every_job
def test_strided_tensors(job: str) -> None:
    look_at(job, reduce_strided, 25)


@every_job
def test_groups_of_mixed_kinds(job: str) -> None:
    look_at(job, reduce_groups, 2 * 3 * 20)


@every_job
def test_b6_scales_minimum_maximum_product_and_average(job: str) -> None:
    look_at(job, scale_values, 33)


@every_job
def test_b7_reduce_scatter_favours_low_ranks_and_needs_rows(job: str) -> None:
    look_at(job, scatter, 135)


@every_job
def test_broadcasts_and_gathers_of_all_types(job: str) -> None:
    look_at(job, move, 10 * 6 + 10 * 4 * 2)


@every_job
def test_objects_and_parameters(job: str) -> None:
    look_at(job, share_objects, 2)


@every_job
def test_parameters_and_graphs(job: str) -> None:
    look_at(job, ignore_autograd, 6)


@every_job
def test_mistakes_of_one_rank_are_refused_at_once(job: str) -> None:
    look_at(job, refuse, 13)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.int64])
def test_an_integer_average_is_exact_for_any_number_of_ranks(dtype: torch.dtype) -> None:
    for ranks in range(2, 300):
        for value in (0, 1, 5, torch.iinfo(dtype).max // ranks):
            total = torch.tensor([value * ranks]).to(dtype)
            if total.item() == value * ranks:
                scale(total, 1.0 / ranks)
                assert total.item() == value
