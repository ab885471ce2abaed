"""Small reductions that travel with the bit vector: right when ranks offer the same, and when they do not."""

from __future__ import annotations

import random
import time

import pytest
import torch

import real_backend as rb
from tests.real_backend.processes import run


def static(steps: int) -> tuple[int, int]:
    """The same tensors each step; how many ANDs took data along, and how many steps ended right."""
    rb.init()
    ranks, right = rb.size(), 0
    for step in range(steps):
        tensors = [torch.full((index + 1,), float(rb.rank() + step)) for index in range(5)]
        handles = [rb.allreduce_async_(tensor, f"t{index}", rb.Sum) for index, tensor in enumerate(tensors)]
        want = float(sum(range(ranks)) + ranks * step)
        right += all(bool((handle.wait() == want).all()) for handle in handles)
    engine = rb.default_engine()
    rb.shutdown()
    return engine.counters.along, right


@pytest.mark.parametrize("radix", ["0", "2"])
@pytest.mark.parametrize("ranks", [2, 8])
def test_a_static_model_takes_its_data_along(ranks: int, radix: str) -> None:
    for along, right in run(ranks, static, 30, env={"COORDSIM_RADIX": radix}):
        assert right == 30
        assert along >= 5


def ragged(steps: int) -> int:
    """Ranks submit the same tensors at different times and in different orders, so that vectors often differ."""
    rb.init()
    dice, ranks = random.Random(rb.rank()), rb.size()
    for step in range(steps):
        order = list(range(6))
        if step % 3:
            dice.shuffle(order)
        handles = {}
        for index in order:
            tensor = torch.full((200 * index + 1,), float(rb.rank() + 10 * index + step))
            handles[index] = rb.allreduce_async(tensor, f"t{index}", rb.Average, prescale=2.0)
            if step % 3 and dice.random() < 0.3:
                time.sleep(0.002)
        for index in order:
            want = 2.0 * ((ranks - 1) / 2 + 10 * index + step)
            found = handles[index].wait()
            assert bool(torch.isclose(found, torch.tensor(want)).all()), (step, index, found[0], want)
    engine = rb.default_engine()
    rb.shutdown()
    return engine.counters.along


@pytest.mark.parametrize("env", [{}, {"COORDSIM_RADIX": "2"}, {"COORDSIM_CYCLE_TIME": "1ms"}])
def test_data_sent_along_in_vain_does_no_harm(env: dict[str, str]) -> None:
    assert sum(run(4, ragged, 40, env=env)) > 0


def three_ways() -> list[list[int]]:
    """Bits of the same sums: with the vector, through the links alone, and fused with others."""
    torch.manual_seed(rb.init().rank)
    values = [torch.randn(50) for _ in range(4)]
    found = []
    for _ in range(4):
        alone = [rb.allreduce(each, f"alone{index}", rb.Sum) for index, each in enumerate(values)]
        found.append(torch.cat(alone).view(torch.int32).tolist())
    found.append(torch.cat(rb.grouped_allreduce(values, "group", rb.Sum)).view(torch.int32).tolist())
    rb.shutdown()
    return found


def test_a_sum_has_the_same_bits_whatever_it_travels_with() -> None:
    for found in run(4, three_ways):
        assert all(each == found[0] for each in found)
