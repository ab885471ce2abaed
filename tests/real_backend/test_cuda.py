"""On a GPU: NCCL, streams, and the refusal to be captured. Skipped, and said so, where there is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import real_backend as rb
from real_backend.data.dtypes import TORCH
from tests.real_backend.processes import run

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU that torch can use; the CPU tests cover the rest"
)


def reduce_every_type() -> list[str]:
    rb.init()
    done = []
    for dtype in TORCH.values():
        if dtype in (torch.bool, torch.int16):
            continue  # NCCL has no such type
        values = torch.arange(6, device="cuda").to(dtype).reshape(2, 3)
        found = rb.allreduce(values, f"one {dtype}", rb.Sum)
        assert found.is_cuda
        assert torch.equal(found, values * rb.size())
        grouped = rb.grouped_allreduce([values, values + 1, values.t()], f"group {dtype}", rb.Max)
        assert torch.equal(grouped[2], values.t())
        done.append(str(dtype))
    rb.shutdown()
    return done


def test_every_type_that_nccl_has() -> None:
    assert len(run(1, reduce_every_type)[0]) >= 7


def order_on_streams() -> bool:
    """The values are made by a slow kernel on a side stream; nothing waits for it on the CPU."""
    rb.init()
    side = torch.cuda.Stream()
    large = torch.randn(4096, 4096, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        for _ in range(30):
            large = large @ large / 64
        values = torch.ones(1 << 20, device="cuda") + large.sum() * 0 + 1
        handle = rb.allreduce_async(values, "slow", rb.Average)
    result = handle.wait()  # the current stream waits, this thread does not
    answer = bool((result.nan_to_num(2.0) == 2).all())
    rb.shutdown()
    return answer


def test_a_result_is_behind_the_stream_that_made_its_input() -> None:
    assert run(1, order_on_streams) == [True]


def capture() -> str:
    rb.init()
    values = torch.ones(4, device="cuda")
    graph = torch.cuda.CUDAGraph()
    text = ""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        graph.capture_begin()
        try:
            rb.allreduce_async(values, "captured")
        except RuntimeError as error:
            text = str(error)
        graph.capture_end()
    assert float(rb.allreduce(values, "afterwards").sum()) == 4.0
    rb.shutdown()
    return text


@pytest.mark.filterwarnings("ignore")
def test_a_capture_is_refused_and_the_job_goes_on() -> None:
    assert "cannot be captured in a CUDA graph" in run(1, capture)[0]


def the_other_operations() -> list[Any]:
    rb.init()
    values = torch.arange(8.0, device="cuda").reshape(4, 2)
    found = [
        rb.broadcast(values, 0, "b").tolist() == values.tolist(),
        rb.allgather(values, "g").shape == (4 * rb.size(), 2),
        rb.reducescatter(values, "r", rb.Sum).tolist() == (values * rb.size()).tolist(),
    ]
    rb.barrier()
    rb.shutdown()
    return found


def test_broadcast_allgather_reduce_scatter() -> None:
    assert run(1, the_other_operations) == [[True, True, True]]


def train() -> float:
    rb.init()
    model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1)).cuda()
    optimizer = rb.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), model.named_parameters())
    inputs = torch.randn(64, 8, device="cuda")
    first = last = 0.0
    for step in range(50):
        optimizer.zero_grad()
        loss = (model(inputs) - inputs.sum(1, keepdim=True)).pow(2).mean()
        loss.backward()
        optimizer.step()
        last = float(loss)
        first = first or last
        assert step >= 0
    rb.shutdown()
    return last / first


def test_the_optimizer_learns() -> None:
    assert run(1, train)[0] < 0.5
