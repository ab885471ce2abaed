"""Where tensors lie in a fused buffer, who gets which rows, and what ranks without data contribute."""

from __future__ import annotations

from math import inf, prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsim.protocol.execution import (
    Span,
    elements,
    factors,
    neutral,
    rank_major,
    scattered,
    shard_rows,
    spans,
)
from coordsim.protocol.messages import DType, Op, ReduceOp, Response, respond_to
from tests.protocol.drive import tensor
from tests.protocol.profile import profile

COUNTS = st.lists(st.integers(0, 20), min_size=1, max_size=5)


def test_a_response_says_all_that_a_rank_without_data_needs() -> None:
    """Elements, type and reduction; for each tensor of a fused one."""
    parts = [respond_to(tensor(name, size, dtype=DType.FLOAT16)) for name, size in (("a", 3), ("b", 0), ("c", 5))]
    fused = parts[0].joined_with(parts[1:])
    assert [elements(fused, index) for index in range(3)] == [3, 0, 5]
    assert spans(fused) == [Span(0, 3), Span(3, 0), Span(3, 5)]
    assert spans(fused)[-1].stop == fused.nbytes // 2


@given(st.integers(0, 10_000), st.integers(1, 300))
@profile(200)
def test_shards_cover_all_rows_once_the_larger_ones_first(rows: int, ranks: int) -> None:
    shards = shard_rows(rows, ranks)
    assert [shard.start for shard in shards] == [0, *(shard.stop for shard in shards[:-1])]
    assert shards[-1].stop == rows
    counts = [shard.elements for shard in shards]
    assert counts == sorted(counts, reverse=True)
    assert max(counts) - min(counts) <= 1


@given(st.lists(COUNTS.map(tuple), min_size=1, max_size=4), st.integers(1, 6))
@profile(200)
def test_in_a_scatter_every_ranks_share_is_one_run(shapes: list[tuple[int, ...]], ranks: int) -> None:
    parts = scattered(shapes, ranks)
    places = rank_major(parts)
    for index, shape in enumerate(shapes):
        assert sum(by_tensor[index] for by_tensor in parts) == prod(shape)
    flat = [place for by_tensor in places for place in by_tensor]
    assert [place.start for place in flat] == [0, *(place.stop for place in flat[:-1])]
    assert [[place.elements for place in by_tensor] for by_tensor in places] == parts


@pytest.mark.parametrize(
    ("reduce_op", "after"), [(ReduceOp.AVERAGE, 0.75), (ReduceOp.SUM, 6.0), (ReduceOp.MAX, 6.0)]
)
def test_an_average_divides_by_all_ranks(reduce_op: ReduceOp, after: float) -> None:
    response = Response(Op.ALLREDUCE, ("x",), (4,), reduce_op=reduce_op, prescale=0.5, postscale=6.0)
    assert factors(response, 8) == (0.5, after)


LIMITS = {
    DType.UINT8: (0, 255), DType.INT8: (-128, 127), DType.UINT16: (0, 65_535), DType.INT16: (-32_768, 32_767),
    DType.INT32: (-(2**31), 2**31 - 1), DType.INT64: (-(2**63), 2**63 - 1), DType.BOOL: (0, 1),
    DType.FLOAT16: (-inf, inf), DType.FLOAT32: (-inf, inf), DType.FLOAT64: (-inf, inf), DType.BFLOAT16: (-inf, inf),
}  # fmt: skip


@pytest.mark.parametrize("dtype", DType)
def test_what_a_rank_without_data_contributes_is_neutral(dtype: DType) -> None:
    lowest, highest = LIMITS[dtype]
    assert neutral(dtype, ReduceOp.MIN) == highest
    assert neutral(dtype, ReduceOp.MAX) == lowest
    assert [neutral(dtype, op) for op in (ReduceOp.SUM, ReduceOp.AVERAGE, ReduceOp.PRODUCT)] == [0, 0, 1]
