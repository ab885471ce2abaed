"""What goes wrong, and what does not go wrong with it (docs/horovod.md 13.1 to 13.11)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

import real_backend as rb
from coordsim.protocol.messages import CPU, DType, Op, Request
from real_backend.data.dtypes import PROTOCOL
from real_backend.engine.handles import Handle
from real_backend.job import environment_store
from tests.real_backend.processes import is_told, run, tell
from tests.real_backend.shared_jobs import once
from tests.real_backend.watch import ones, together, watched

Call = Callable[[], Any]
every_size = pytest.mark.parametrize("ranks", [2, 4])


def fails_everywhere(text: str, wrong: Call, right: Call, wanted: torch.Tensor, engine: Any = None) -> str:
    """The error of ``wrong`` on this rank; then the same name must work, and so must what was beside it."""
    beside = rb.allreduce_async(torch.ones(3), f"beside {text}", rb.Sum)
    with pytest.raises(rb.CollectiveFailed, match=text) as caught:
        wrong()
    assert beside.wait().tolist() == [rb.size()] * 3
    for _ in range(2):
        assert torch.equal(right(), wanted)
    return str(caught.value)


def mismatches() -> dict[str, str]:
    """By behaviour and kind: the text that this rank was given."""
    rb.init()
    rank, ranks = rb.rank(), rb.size()
    odd, last = rank % 2 == 1, rank == ranks - 1
    total = torch.full((4,), float(ranks))
    four = torch.ones(4)

    def reduces(name: str) -> Call:
        return lambda: rb.allreduce(four, name, rb.Sum)

    cases: dict[str, tuple[str, Call, Call]] = {
        "2 shape": ("Mismatched tensor shapes", lambda: rb.allreduce(torch.ones(4 + last), "a"), reduces("a")),
        "2 rank": (
            "Mismatched tensor shapes", lambda: rb.allreduce(torch.ones((2, 2) if last else (4,)), "b"), reduces("b")
        ),
        "3 type": (
            "Mismatched data types",
            lambda: rb.allreduce(torch.ones(4, dtype=torch.float32 if odd else torch.int32), "c"), reduces("c"),
        ),
        "3 operation": (
            "Mismatched operations", lambda: either(odd, "allreduce.d").wait(), reduces("d"),
        ),
        "3 scale": (
            "Mismatched prescale and/or postscale factors", lambda: rb.allreduce(four, "e", prescale=1.0 + odd),
            reduces("e"),
        ),
        "3 reduction": (
            "Mismatched reduction operation", lambda: rb.allreduce(four, "f", rb.Sum if last else rb.Max), reduces("f")
        ),
        "3 device": (
            "Mismatched CPU/GPU device selection", lambda: on_device(0 if odd else CPU, "allreduce.g").wait(),
            reduces("g"),
        ),
        "5 root": (
            "Mismatched broadcast root ranks", lambda: rb.broadcast(four, int(last), "h"),
            lambda: rb.broadcast(total, 0, "h"),
        ),
        "5 rows": (
            "Mismatched tensor shapes", lambda: rb.allgather(torch.ones(2, 3 + last), "i"),
            lambda: rb.allgather(torch.ones(1), "i").sum().expand(4),
        ),
        "5 gathered type": (
            "Mismatched data types", lambda: rb.allgather(four.to(torch.int8 if last else torch.uint8), "j"),
            lambda: rb.allgather(torch.ones(1), "j").sum().expand(4),
        ),
    }  # fmt: skip
    found = {key: fails_everywhere(*case, total) for key, case in cases.items()}
    grouped: Call = lambda: rb.grouped_allreduce([four, torch.ones(4 + last), four], "k", rb.Sum)  # noqa: E731
    found["2 group"] = fails_everywhere(
        "Mismatched tensor shapes for 'grouped_allreduce.k_2of3'", grouped,
        lambda: rb.grouped_allreduce([four] * 3, "k", rb.Sum)[1], total,
    )  # fmt: skip
    rb.shutdown()
    return found


def either(gathers: bool, name: str) -> Handle:
    op = Op.ALLGATHER if gathers else Op.ALLREDUCE
    return rb.default_engine().submit([(Request(name, op, shape=(4,)), torch.ones(4), None)])


def on_device(device: int, name: str) -> Handle:
    return rb.default_engine().submit([(Request(name, shape=(4,), device=device), torch.ones(4), None)])


@every_size
@pytest.mark.parametrize(
    ("number", "count"), [(2, 3), (3, 5), (5, 3)], ids=["b2 shapes", "b3 types and more", "b5 roots and rows"]
)
def test_b2_b3_b5_a_mismatch_is_told_to_every_rank(ranks: int, number: int, count: int) -> None:
    """The same text everywhere, naming who differs; processes live on."""
    found = once(ranks, mismatches)
    assert found == [found[0]] * ranks
    texts = [text for key, text in found[0].items() if key.startswith(f"{number} ")]
    assert len(texts) == count
    assert all(text.count(" has ") == 2 for text in texts)


def test_b2_shapes_are_an_error_on_every_rank() -> None:
    found = once(4, mismatches)[2]
    assert all(part in found["2 shape"] for part in ("'allreduce.a': ", " has [4]", "rank 3 has [5]"))
    assert all(part in found["2 rank"] for part in ("'allreduce.b': ", " has [4]", "rank 3 has [2, 2]"))


def test_b3_types_devices_and_the_rest_are_errors_too() -> None:
    found = once(2, mismatches)[0]
    assert all(part in found["3 type"] for part in ("rank 0 has int32", "rank 1 has float32"))
    assert all(part in found["3 device"] for part in ("rank 0 has CPU", "rank 1 has GPU"))


def test_b5_roots_and_rows_must_agree() -> None:
    text = once(2, mismatches)[0]["5 root"]
    assert all(part in text for part in ("rank 0 has 0", "rank 1 has 1"))


@every_size
def test_b10_after_an_error_the_same_name_succeeds(ranks: int) -> None:
    """:func:`fails_everywhere` uses each name twice more, and asserts what comes of it."""
    assert [len(found) for found in once(ranks, mismatches)] == [11] * ranks


def many_at_once() -> tuple[int, int]:
    """How many were not done when first asked, and how many sums were wrong."""
    rb.init()
    rank, ranks = rb.rank(), rb.size()
    time.sleep(0.03 * (rank == ranks - 1))
    cases = [
        (f"{dtype} {shape}", (torch.arange(torch.Size(shape).numel()) % 5).view(shape).to(dtype) + rank)
        for dtype in PROTOCOL if dtype is not torch.bool for shape in ((17,), (17, 17), (17, 17, 2))
    ]  # fmt: skip
    handles = [rb.allreduce_async(tensor, name, rb.Sum) for name, tensor in cases]
    unfinished = sum(not handle.poll() for handle in handles)
    wrong = 0
    for handle, (_, tensor) in zip(handles, cases, strict=True):
        total = (tensor.double() - rank) * ranks + sum(range(ranks))
        wrong += not torch.equal(handle.wait().double(), total)
        assert handle.poll()
    rb.shutdown()
    return unfinished, wrong


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_b1_many_tensors_of_mixed_types_at_once(ranks: int) -> None:
    found = run(ranks, many_at_once)
    assert [wrong for _, wrong in found] == [0] * ranks
    if ranks > 1:
        assert found[0][0] >= 15


def duplicates() -> list[str]:
    """Operations whose name was refused the second time, while the first still waited for rank 0."""
    rb.init()
    rank, ranks = rb.rank(), rb.size()
    store = environment_store(rank, ranks)
    four = torch.ones(4)
    calls: dict[str, Callable[[], Handle]] = {
        "allreduce.x": lambda: rb.allreduce_async(four, "x", rb.Sum),
        "allgather.x": lambda: rb.allgather_async(four, "x"),
        "broadcast.x": lambda: rb.broadcast_async(four * ranks, 0, "x"),
        "reducescatter.x": lambda: rb.reducescatter_async(four, "x", rb.Sum),
        "grouped_allreduce.y_2of3": lambda: together(rb.default_engine(), {"grouped_allreduce.y_2of3": four}),
    }
    again = {**calls, "grouped_allreduce.y_2of3": lambda: rb.grouped_allreduce_async([four] * 3, "y", rb.Sum)}
    refused = []
    for name, call in calls.items():
        if rank == 0:
            while store.add(name, 0) < ranks - 1:
                time.sleep(0.001)
            call().wait()
        else:
            first = call()
            with pytest.raises(rb.DuplicateName, match=f"'{name}' was submitted again"):
                again[name]()
            refused.append(name)
            store.add(name, 1)
            first.wait()
        assert again[name]().wait()[0].max().item() == (1 if name == "allgather.x" else ranks)
    rb.shutdown()
    return refused


@every_size
def test_b4_a_name_twice_is_refused_at_once_and_the_first_completes(ranks: int) -> None:
    """A group with such a name is refused whole: its other members may be used again at once."""
    names = ["allreduce.x", "allgather.x", "broadcast.x", "reducescatter.x", "grouped_allreduce.y_2of3"]
    assert run(ranks, duplicates) == [[]] + [names] * (ranks - 1)


def life_cycle() -> list[str]:
    """Everything that was refused before init and after shutdown."""
    ones = torch.ones(2)
    calls: dict[str, Call] = {
        "allreduce": lambda: rb.allreduce(ones, "x"), "group": lambda: rb.grouped_allreduce_([ones], "x"),
        "allgather": lambda: rb.allgather(ones, "x"), "broadcast": lambda: rb.broadcast_(ones, 0, "x"),
        "scatter": lambda: rb.reducescatter(ones, "x"), "barrier": rb.barrier, "join": rb.join, "rank": rb.rank,
        "size": rb.size, "object": lambda: rb.broadcast_object(1),
        "parameters": lambda: rb.broadcast_parameters({"x": ones}),
        "optimizer": lambda: rb.DistributedOptimizer(torch.optim.SGD([torch.nn.Parameter(ones)], 0.1)),
    }  # fmt: skip
    refused = []
    for _ in range(2):
        assert not rb.is_initialized()
        for name, call in calls.items():
            with pytest.raises(rb.NotRunning):
                call()
            refused.append(name)
        engine = rb.init()
        assert rb.is_initialized()
        assert (rb.rank(), rb.size()) == (engine.rank, engine.ranks)
        with pytest.raises(rb.CannotStart, match="initialized already"):
            rb.init()
        assert rb.allreduce(torch.ones(2), op=rb.Sum).tolist() == [rb.size()] * 2
        rb.barrier()
        rb.shutdown()
        with pytest.raises(rb.NotRunning):
            engine.submit([(Request("late", dtype=DType.FLOAT32), torch.tensor(1.0), None)])
    return refused


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_b8_init_shutdown_init_works_and_nothing_before_or_between(ranks: int) -> None:
    for refused in run(ranks, life_cycle):
        assert len(refused) == 2 * 12


def barriers() -> bool:
    """Whether rank 0 had come when this rank left the barrier, with operations pending around it."""
    rb.init()
    rb.barrier()
    before = [rb.allreduce_async(torch.ones(4), f"before {each}") for each in range(5)]
    if rb.rank() == 0:
        time.sleep(0.2)
        tell("rank 0 comes")
    rb.barrier("late")
    zero_came = is_told("rank 0 comes")
    after = [rb.allreduce_async(torch.ones(4), f"after {each}") for each in range(5)]
    rb.barrier("late")
    for handle in before + after:
        assert handle.wait().tolist() == [1.0] * 4
    rb.shutdown()
    return zero_came


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_b9_a_barrier_waits_for_the_last(ranks: int) -> None:
    assert run(ranks, barriers) == [True] * ranks


def left_behind() -> dict[str, str]:
    """What became of everything that was pending when the last rank shut down."""
    rb.init()
    rank, ranks = rb.rank(), rb.size()
    rb.allreduce(torch.ones(2), "cached")
    if rank == ranks - 1:
        time.sleep(0.1)
        rb.shutdown()
        return {}
    engine = rb.default_engine()
    pending: dict[str, Callable[[], Handle]] = {
        "new": lambda: rb.allreduce_async(torch.ones(2), "new"),
        "cached": lambda: rb.allreduce_async(torch.ones(2), "cached"),
        "group": lambda: together(engine, ones("a", "b")),
        "gather": lambda: rb.allgather_async(torch.ones(2), "g"),
        "join": engine.join,
    }
    handles = {name: call() for name, call in pending.items()}
    found = {}
    for name, handle in handles.items():
        try:
            found[name] = f"returned {handle.wait(20)}"
        except Exception as error:
            found[name] = type(error).__name__
    assert not rb.is_initialized()
    rb.shutdown()
    return found


@every_size
def test_b11_one_ranks_shutdown_fails_what_is_pending_everywhere(ranks: int) -> None:
    names = ["new", "cached", "group", "gather", "join"]
    assert run(ranks, left_behind) == [dict.fromkeys(names, "ShutDown")] * (ranks - 1) + [{}]


def fail_many() -> tuple[list[str], int]:
    """Errors do not pile up: training goes on around them, from the cache."""
    engine, watch = watched()
    watch.forget()
    for step in range(20):
        good = together(engine, ones(*"abcdef"))
        bad = together(engine, {f"bad {step}": torch.ones(2 + engine.rank)})
        with pytest.raises(rb.CollectiveFailed):
            bad.wait()
        good.wait()
    names = watch.names_by_bit
    engine.shut_down()
    return names, len(watch.errors)


def test_errors_are_not_cached_and_leave_nothing_behind() -> None:
    assert once(2, fail_many) == [(list("abcdef"), 20)] * 2

