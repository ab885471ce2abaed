"""What is fused and what stays together, on real ranks (docs/horovod.md 13.26 to 13.34).

Tensors that must be ready in one cycle are submitted as one unit: all are popped together on the last rank.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

import real_backend as rb
from coordsim.protocol.messages import Op
from real_backend.engine.engine import Engine
from real_backend.engine.handles import Handle
from tests.real_backend.processes import run
from tests.real_backend.shared_jobs import once
from tests.real_backend.watch import Fused, Watch, ones, together, watched

Facts = dict[str, Any]
every_size = pytest.mark.parametrize("ranks", [1, 2, 4])


def floats(**elements: int) -> dict[str, torch.Tensor]:
    return {name: torch.ones(count) for name, count in elements.items()}


def doubles(**elements: int) -> dict[str, torch.Tensor]:
    return {name: torch.ones(count, dtype=torch.float64) for name, count in elements.items()}


UNITS: dict[str, tuple[dict[str, torch.Tensor], list[Fused]]] = {
    "to the byte": (floats(a=128, b=128, c=1), [("a", "b"), ("c",)]),
    "past another type": (floats(a=10) | doubles(x=5) | floats(b=10), [("a", "b"), ("x",)]),
    "not past too much": (floats(a=128) | doubles(x=100) | floats(b=1), [("a",), ("x",), ("b",)]),
    "larger alone": (floats(a=1, b=300, c=1, d=2), [("a",), ("b",), ("c", "d")]),
    "types": (floats(a=1) | {"b": torch.ones(1, dtype=torch.int32)} | doubles(c=1), [("a",), ("b",), ("c",)]),
}
"""Threshold 1024 B. What is submitted, and the operations that it makes."""


def fuse(engine: Engine, watch: Watch) -> Facts:
    """Slow, then fast."""
    facts: Facts = {}
    for title, (unit, _) in UNITS.items():
        named = {f"{title}.{name}": tensor for name, tensor in unit.items()}
        facts[title] = []
        for _ in range(2):
            watch.during(lambda named=named: check(together(engine, named), named))  # type: ignore[misc]
            facts[title].append([tuple(name.rpartition(".")[2] for name in names) for names in watch.operations])
    return facts


def check(handle: Handle, unit: dict[str, torch.Tensor]) -> None:
    """An average of ones is ones."""
    for found, tensor in zip(handle.wait(), unit.values(), strict=True):
        assert torch.equal(found, tensor)


def keep_kinds_apart(engine: Engine, watch: Watch) -> Facts:
    """b28: one unit whose members differ in one parameter each; members of an operation in queue order."""
    requests: list[tuple[str, Facts]] = [
        ("a", {}), ("b", {"reduce_op": rb.Max}), ("c", {"prescale": 2.0}), ("d", {"postscale": 2.0}),
        ("e", {"op": Op.ALLGATHER}), ("f", {}), ("g", {"reduce_op": rb.Max}), ("h", {"op": Op.ALLGATHER}),
    ]  # fmt: skip
    made = []
    for _ in range(2):

        def submit() -> None:
            unit = []
            for name, fields in requests:
                request = watch.book.request(name, torch.ones(2), **{"reduce_op": rb.Sum, **fields})
                unit.append((request, torch.ones(2), None))
            found = engine.submit(unit, grouped=True).wait()
            n = engine.ranks
            assert [each.tolist()[0] for each in found] == [n, 1, 2 * n, 2 * n, 1, n, 1, 1]

        watch.during(submit)
        made.append(watch.operations)
    return {"made": made}


def unfused(engine: Engine, watch: Watch) -> Facts:
    watch.during(lambda: check(together(engine, floats(a=1, b=2, c=3)), floats(a=1, b=2, c=3)))
    return {"made": watch.operations}


def rounded(engine: Engine, watch: Watch) -> Facts:
    """b27: a threshold of 1 B, four ranks a node: 2048 B."""
    unit = floats(a=256, b=256, c=1)
    watch.during(lambda: check(together(engine, unit), unit))
    return {"made": watch.operations, "threshold": engine.settings.protocol(engine.ranks).fusion_threshold_bytes}


def late_group(engine: Engine, watch: Watch) -> Facts:
    """b29: the last rank brings its group later; when each member had ended, and where it ran."""
    last = engine.rank == engine.ranks - 1
    found: Facts = {}

    def submit() -> None:
        time.sleep(0.05 * last)
        handle = rb.grouped_allreduce_async([torch.ones(4)] * 3, "late", rb.Sum, engine=engine)
        found["early"] = handle.poll()
        assert [each.tolist() for each in handle.wait()] == [[engine.ranks] * 4] * 3

    rb.grouped_allreduce([torch.ones(4)] * 3, "late", rb.Sum, engine=engine)
    watch.during(submit)
    return {**found, "cycles": [sorted(name for names in seen.responses for name in names) for seen in watch.seen]}


def two_groups(engine: Engine, watch: Watch) -> Facts:
    """b30, b31: two groups and a single tensor become ready together, because the last rank brings them in one unit."""
    first = [torch.ones(3), torch.ones(40), torch.ones(2, dtype=torch.float64)]
    second = [torch.ones(200), torch.ones(100)]
    single = torch.ones(1)
    names = {
        **{f"grouped_allreduce.one_{each}of3": tensor for each, tensor in enumerate(first, 1)},
        **{f"grouped_allreduce.two_{each}of2": tensor for each, tensor in enumerate(second, 1)},
        "allreduce.single": single,
    }

    def submit() -> None:
        if engine.rank == engine.ranks - 1:
            watch.meet()
            check(together(engine, names), names)
            return
        handles = [
            rb.grouped_allreduce_async(first, "one", engine=engine),
            rb.grouped_allreduce_async(second, "two", engine=engine),
            rb.allreduce_async(single, "single", engine=engine),
        ]  # fmt: skip
        watch.meet()
        for handle in handles:
            handle.wait()

    if engine.settings.strict_groups:
        engine.register_groups([list(names)[:3], list(names)[3:5]])
    made = []
    for _ in range(2):
        watch.during(submit)
        made.append([tuple(name.rpartition(".")[2] for name in names) for names in watch.operations])
    return {"made": made}


def partly_cached(engine: Engine, watch: Watch) -> Facts:
    """b32: one member of a cached group has another shape on all ranks."""
    rb.grouped_allreduce([torch.ones(2)] * 4, "part", engine=engine)
    tensors = [torch.ones(2), torch.ones(2), torch.ones(5), torch.ones(2)]

    def submit() -> None:
        time.sleep(0.02 * (engine.rank == engine.ranks - 1))
        found = rb.grouped_allreduce(tensors, "part", engine=engine)
        assert [each.shape for each in found] == [each.shape for each in tensors]

    counted = watch.during(submit)
    cycles = [sorted(name for names in seen.responses for name in names) for seen in watch.seen]
    return {"invalidated": counted["invalidated"], "cycles": cycles}


def orders(engine: Engine, watch: Watch) -> Facts:
    """b34: groups registered in another order on the last rank; then members in another order."""
    last = engine.rank == engine.ranks - 1
    engine.register_groups([["b0", "b1"], ["a0", "a1"]] if last else [["a0", "a1"], ["b0", "b1"]])
    unit = ones("a0", "a1", "b0", "b1")
    watch.during(lambda: check(together(engine, unit), unit))
    facts: Facts = {"made": watch.operations, "error": ""}
    engine.register_groups([["c1", "c0"] if last else ["c0", "c1"]])
    handle = together(engine, ones("c1", "c0") if last else ones("c0", "c1"))
    try:
        handle.wait()
    except rb.CollectiveFailed as error:
        facts["error"] = str(error)
    check(together(engine, unit), unit)
    return facts


PARTS: dict[str, tuple[Callable[[Engine, Watch], Facts], Facts]] = {
    "fuse": (fuse, {"fusion_threshold_bytes": 1024}),
    "kinds": (keep_kinds_apart, {}),
    "unfused": (unfused, {"fusion_threshold_bytes": 0}),
    "rounded": (rounded, {"fusion_threshold_bytes": 1, "ranks_per_node": 4}),
    "late": (late_group, {}),
    "late, strict": (late_group, {"strict_groups": True}),
    "two": (two_groups, {"fusion_threshold_bytes": 1024}),
    "two, strict": (two_groups, {"fusion_threshold_bytes": 1024, "strict_groups": True}),
    "partly": (partly_cached, {}),
    "partly, strict": (partly_cached, {"strict_groups": True}),
    "orders": (orders, {"strict_groups": True}),
}


def everything() -> dict[str, Facts]:
    found = {}
    for title, (part, settings) in PARTS.items():
        engine, watch = watched(**settings)
        found[title] = part(engine, watch)
        engine.shut_down()
    return found


def same_everywhere(ranks: int, title: str) -> Facts:
    found = [facts[title] for facts in once(ranks, everything)]
    assert found == [found[0]] * ranks
    return found[0]


@every_size
def test_b26_the_threshold_is_inclusive_and_other_kinds_count(ranks: int) -> None:
    facts = same_everywhere(ranks, "fuse")
    for title, (_, wanted) in UNITS.items():
        assert facts[title] == [wanted, wanted], title


@every_size
def test_b27_threshold_zero_and_rounding(ranks: int) -> None:
    assert same_everywhere(ranks, "unfused")["made"] == [("a",), ("b",), ("c",)]
    assert same_everywhere(ranks, "rounded") == {"made": [("a", "b"), ("c",)], "threshold": 2048}


@every_size
def test_b28_unequal_kinds_never_fuse(ranks: int) -> None:
    wanted = [("a", "f"), ("b", "g"), ("c",), ("d",), ("e", "h")]
    assert same_everywhere(ranks, "kinds")["made"] == [wanted, wanted]


@every_size
@pytest.mark.parametrize("kind", ["late", "late, strict"])
def test_b29_no_member_runs_before_the_last_rank_has_the_group(ranks: int, kind: str) -> None:
    found = [facts[kind] for facts in once(ranks, everything)]
    members = [f"grouped_allreduce.late_{each}of3" for each in (1, 2, 3)]
    assert [facts["cycles"] for facts in found] == [[members]] * ranks
    assert ranks == 1 or not any(facts["early"] for facts in found[:-1])


@every_size
def test_b30_loose_groups_fuse_with_others_strict_ones_never(ranks: int) -> None:
    """On the slow path and on the fast one."""
    one, two = ("one_1of3", "one_2of3"), ("two_1of2", "two_2of2")
    loose = [(*one, two[0]), ("one_3of3",), (two[1], "single")]
    assert same_everywhere(ranks, "two")["made"] == [loose, loose]
    strict = [one, ("one_3of3",), two, ("single",)]
    assert same_everywhere(ranks, "two, strict")["made"] == [strict, strict]


@every_size
def test_b31_groups_split_by_type_and_loose_ones_by_the_threshold(ranks: int) -> None:
    """Of the same runs: group one has two types; group two has 1200 B, and 1024 B are the threshold."""
    loose, strict = (same_everywhere(ranks, kind)["made"][0] for kind in ("two", "two, strict"))
    assert not any({"two_1of2", "two_2of2"} <= set(names) for names in loose)
    assert ("two_1of2", "two_2of2") in strict
    assert all(("one_3of3",) in made for made in (loose, strict))


@every_size
@pytest.mark.parametrize("kind", ["partly", "partly, strict"])
def test_b32_a_group_partly_cached_completes_in_one_cycle(ranks: int, kind: str) -> None:
    facts = same_everywhere(ranks, kind)
    assert facts == {"invalidated": 1, "cycles": [[f"grouped_allreduce.part_{each}of4" for each in (1, 2, 3, 4)]]}


@pytest.mark.parametrize("ranks", [2, 4])
def test_b34_numbers_of_groups_do_not_matter_and_orders_of_members_do(ranks: int) -> None:
    facts = same_everywhere(ranks, "orders")
    assert facts["made"] == [("a0", "a1"), ("b0", "b1")]
    assert facts["error"].startswith("Mismatched group members or their order for 'c")


def sums_with_noise() -> tuple[list[str], list[list[Fused]]]:
    """Six times the same groups over gloo, at random times: the bits of all sums, and what was fused."""
    engine, watch = watched(strict_groups=True, small_bytes=0)
    torch.manual_seed(engine.rank)
    groups = [[torch.randn(37 + 11 * index) * 10 ** (index % 5) for index in range(4)] for _ in range(3)]
    dice = random.Random(engine.rank)
    bits, made = [], []

    def reduce() -> None:
        handles = []
        for number, tensors in enumerate(groups):
            time.sleep(dice.random() * 0.004)
            handles.append(rb.grouped_allreduce_async(tensors, f"g{number}", rb.Sum, engine=engine))
        flat = torch.cat([each for handle in handles for each in handle.wait()])
        bits.append(flat.numpy().tobytes().hex())

    for _ in range(6):
        watch.during(reduce)
        made.append(sorted(watch.operations))
    engine.shut_down()
    return bits, made


def test_b33_strict_groups_make_the_same_operations_and_bits_every_time() -> None:
    for bits, made in run(4, sums_with_noise):
        assert len(set(bits)) == 1
        assert made == [made[0]] * 6
        assert [len(names) for names in made[0]] == [4, 4, 4]


def unnamed_strict_groups() -> list[int]:
    engine = rb.init(strict_groups=True)
    held = []
    for _ in range(3):
        pending = [rb.grouped_allreduce_async([torch.ones(3), torch.ones(2)]) for _ in range(4)]
        held.append(len(engine._session.groups.groups))
        for handle in pending:
            handle.wait()
    rb.grouped_allreduce([torch.ones(3), torch.ones(2)], "named")
    rb.barrier()
    held.append(len(engine._session.groups.groups))
    rb.shutdown()
    return held


@pytest.mark.parametrize("ranks", [1, 2])
def test_strict_groups_without_names_are_forgotten_once_they_are_reduced(ranks: int) -> None:
    for held in run(ranks, unnamed_strict_groups):
        assert max(held[:3]) <= 8
        assert held[3] == 1
