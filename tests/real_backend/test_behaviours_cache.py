"""Steady state and what disturbs it, on real ranks: counters, caches and schedules (docs/horovod.md 13.12 to 13.25)."""

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

NAMES = [f"t{index:02}" for index in range(20)]
Facts = dict[str, Any]
Call = Callable[[Engine, str], Handle]
Wanted = Callable[[int], list[float]]


def step(engine: Engine, names: list[str], **fields: Any) -> None:
    """One by one, then wait for all; every rank brings ones."""
    fields.setdefault("reduce_op", rb.Sum)
    handles = [together(engine, ones(name, elements=int(name[1:]) + 1), **fields) for name in names]
    for name, handle in zip(names, handles, strict=True):
        assert handle.wait()[0].tolist() == [engine.ranks] * (int(name[1:]) + 1)


def steady(engine: Engine, watch: Watch) -> Facts:
    """b12: the same in every step. b13: in another order on every rank and in every step."""
    step(engine, NAMES)
    dice = random.Random(engine.rank)

    def steps(names: Callable[[], list[str]]) -> Callable[[], Any]:
        return lambda: [step(engine, names()) for _ in range(10)]

    same = watch.during(steps(lambda: NAMES))
    shuffled = watch.during(steps(lambda: dice.sample(NAMES, len(NAMES))))
    return {"same": same, "shuffled": shuffled, "digest": watch.cache.digest(), "bits": watch.names_by_bit}


def late(engine: Engine, watch: Watch) -> Facts:
    """b14: the last rank comes 50 ms late. In which cycle each operation ran, and what this rank brought into it."""
    step(engine, NAMES)

    def come() -> None:
        time.sleep(0.05 * (engine.rank == engine.ranks - 1))
        step(engine, ["t00"])

    counted = watch.during(come)
    return {"counted": counted, "ran": watch.seen[-1].cycle, "brought": watch.seen[-1].popped}


CHANGES: dict[str, tuple[Call, Wanted]] = {
    "shape": (lambda e, n: together(e, ones(n, elements=3), reduce_op=rb.Sum), lambda n: [n] * 3),
    "dtype": (lambda e, n: together(e, {n: torch.ones(2, dtype=torch.int32)}, reduce_op=rb.Sum), lambda n: [n] * 2),
    "prescale": (lambda e, n: together(e, ones(n), reduce_op=rb.Sum, prescale=0.5), lambda n: [n / 2] * 2),
    "postscale": (lambda e, n: together(e, ones(n), reduce_op=rb.Sum, postscale=3.0), lambda n: [3.0 * n] * 2),
    "reduction": (lambda e, n: together(e, ones(n), reduce_op=rb.Max), lambda n: [1.0] * 2),
    "operation": (lambda e, n: together(e, ones(n), op=Op.ALLGATHER), lambda n: [1.0] * 2 * n),
}


def changes(engine: Engine, watch: Watch) -> Facts:
    """b15, b16: a parameter of a cached name changes everywhere, or on the last rank alone."""
    facts: Facts = {}
    for change, (call, wanted) in CHANGES.items():
        name = f"change {change}"

        def new(call: Call = call, wanted: Wanted = wanted, name: str = name) -> None:
            assert call(engine, name).wait()[0].tolist() == wanted(engine.ranks)

        def old_on_the_last(call: Call = call, name: str = name) -> None:
            last = engine.rank == engine.ranks - 1
            handle = together(engine, ones(name), reduce_op=rb.Sum) if last else call(engine, name)
            with pytest.raises(rb.CollectiveFailed, match="Mismatched"):
                handle.wait()

        together(engine, ones(name), reduce_op=rb.Sum).wait()
        facts[change] = [watch.during(new), watch.during(new)]
        if engine.ranks > 1:
            facts[change].append({**watch.during(old_on_the_last), "known": name in watch.cache})
        new()
    watch.meet()
    return {**facts, "digest": watch.cache.digest()}


def new_names(engine: Engine, watch: Watch) -> Facts:
    """b19: a tensor without a name in every step. b20: a new one together with cached ones, listed before them."""

    def one_more() -> None:
        handle = rb.allreduce_async(torch.ones(1), op=rb.Sum, engine=engine)
        step(engine, NAMES)
        assert handle.wait().item() == engine.ranks

    def mixed() -> None:
        tensors = {"new": torch.ones(1), "t05": torch.ones(6), "t03": torch.ones(4)}
        together(engine, tensors, reduce_op=rb.Sum).wait()

    step(engine, NAMES)
    facts: Facts = {"unnamed": [watch.during(one_more) for _ in range(5)]}
    watch.during(mixed)
    bits = watch.names_by_bit
    facts["expected"] = [(*sorted(("t05", "t03"), key=bits.index), "new")]
    return {**facts, "mixed": watch.operations, "digest": watch.cache.digest()}


def never_cached(engine: Engine, watch: Watch) -> Facts:
    """b21: what two more of each operation under a known name cost."""
    calls: dict[str, Callable[[], Any]] = {
        "broadcast": lambda: rb.broadcast(torch.ones(2), 0, "b", engine=engine),
        "reducescatter": lambda: rb.reducescatter(torch.ones(4), "r", engine=engine),
        "barrier": lambda: rb.barrier("w", engine=engine),
        "allgather": lambda: rb.allgather(torch.ones(2), "g", engine=engine),
    }
    facts: Facts = {}
    for name, call in calls.items():
        call()
        facts[name] = [watch.during(call)["slow_cycles"] for _ in range(2)]
    return facts


def many_words(engine: Engine, watch: Watch) -> Facts:
    """b22: words of the vector as the cache grows, with 61, 62 and 200 entries; results of all."""
    words = []
    names = [f"w{index:03}" for index in range(200)]
    for name in names:
        together(engine, ones(name, elements=1)).wait()
        if len(watch.cache) in (61, 62, 200):
            words.append(watch.cache.words)
    for _ in range(2):
        handles = [together(engine, ones(name, elements=1, value=3.0)) for name in names]
        assert all(handle.wait()[0].item() == 3.0 for handle in handles)
    return {"words": words}


def as_told(engine: Engine, watch: Watch) -> Facts:
    """b24: what the coordinator fused, then what the fast path fused; b25: after a bit in the middle was given up."""
    sizes = {"a": 100, "b": 28, "c": 1, "d": 127, "e": 300, "f": 2, "g": 3}
    tensors = {name: torch.ones(size) for name, size in sizes.items()}
    made: list[list[Fused]] = []
    for _ in range(3):
        watch.during(lambda: together(engine, tensors).wait())
        made.append(watch.operations)
    facts: Facts = {"fused": made, "before": watch.names_by_bit}
    together(engine, {"b": tensors["b"]}).wait()
    together(engine, {"c": torch.ones(5)}).wait()
    watch.meet()
    facts["after"] = watch.names_by_bit

    def the_others() -> None:
        for name in "gfedba":
            assert together(engine, {name: tensors[name]}).wait()[0].tolist() == [1.0] * sizes[name]

    return {**facts, "slow": watch.during(the_others)["slow_cycles"], "digest": watch.cache.digest()}


def end(engine: Engine, watch: Watch) -> Facts:
    """b23: rank 0 leaves an idle job."""

    def leave() -> None:
        if engine.rank == 0:
            engine.shut_down()
        deadline = time.monotonic() + 10
        while engine.running and time.monotonic() < deadline:
            time.sleep(0.001)

    step(engine, NAMES)
    counted = watch.during(leave)
    return {"running": engine.running, "slow": counted["slow_cycles"], "failure": engine.failure}


PARTS: list[tuple[Callable[[Engine, Watch], Facts], Facts]] = [
    (steady, {}), (late, {"cycle_time_ns": 1_000_000}), (changes, {}), (new_names, {}), (never_cached, {}),
    (many_words, {}), (as_told, {"fusion_threshold_bytes": 512}), (end, {}),
]  # fmt: skip


def everything() -> dict[str, Facts]:
    """Engines one after the other, each with a part that looks at it."""
    found = {}
    for part, settings in PARTS:
        engine, watch = watched(**settings)
        found[part.__name__] = part(engine, watch)
        engine.shut_down()
    return found


def facts_of(ranks: int, part: Callable[[Engine, Watch], Facts]) -> list[Facts]:
    return [found[part.__name__] for found in once(ranks, everything)]


def all_equal(facts: list[Facts], *keys: str) -> bool:
    return all(each[key] == facts[0][key] for each in facts for key in keys)


every_size = pytest.mark.parametrize("ranks", [1, 2, 4])


@every_size
def test_b12_steady_state_is_one_and_a_cycle(ranks: int) -> None:
    for facts in facts_of(ranks, steady):
        counted = facts["same"]
        assert counted["slow_cycles"] == 0
        assert counted["exchanges"] == counted["cycles"] > 0
        assert counted["hits"] == counted["tensors"] == 10 * len(NAMES)


@every_size
def test_b13_local_order_does_not_matter(ranks: int) -> None:
    """:func:`step` looks at the results."""
    facts = facts_of(ranks, steady)
    assert all_equal(facts, "digest", "bits")
    assert all(each["shuffled"]["slow_cycles"] == 0 for each in facts)
    assert all(each["shuffled"]["exchanges"] == each["shuffled"]["cycles"] for each in facts)


@every_size
def test_b14_a_late_rank_costs_no_message_and_decides_the_cycle(ranks: int) -> None:
    facts = facts_of(ranks, late)
    assert all_equal(facts, "ran")
    assert facts[-1]["brought"] == ("t00",)
    for each in facts:
        assert each["counted"]["slow_cycles"] == 0
        assert each["counted"]["exchanges"] == each["counted"]["cycles"]
    if ranks > 1:
        assert facts[0]["brought"] == ()
        assert facts[0]["counted"]["cycles"] > 10


@every_size
@pytest.mark.parametrize("change", CHANGES)
def test_b16_a_changed_parameter_is_invalidated_once(ranks: int, change: str) -> None:
    """Everywhere: one OR, slow until the last rank has asked, then hits. On one rank: an error, the entry is gone."""
    facts = facts_of(ranks, changes)
    assert all_equal(facts, "digest")
    for each in facts:
        first, again, *alone = each[change]
        assert first["invalidated"] == 1
        assert 1 <= first["slow_cycles"] <= ranks
        assert (again["invalidated"], again["slow_cycles"]) == (0, 0)
        for failed in alone:
            assert failed["invalidated"] == 1
            assert not failed["known"]


@every_size
def test_b15_a_new_shape(ranks: int) -> None:
    test_b16_a_changed_parameter_is_invalidated_once(ranks, "shape")


@every_size
def test_b19_a_new_name_each_step_is_one_miss(ranks: int) -> None:
    for facts in facts_of(ranks, new_names):
        for counted in facts["unnamed"]:
            assert counted["hits"] == len(NAMES)
            assert counted["tensors"] == len(NAMES) + 1
            assert 1 <= counted["slow_cycles"] <= ranks


@every_size
def test_b20_hits_and_a_new_tensor_run_in_one_cycle_hits_first(ranks: int) -> None:
    facts = facts_of(ranks, new_names)
    assert all_equal(facts, "mixed", "digest")
    assert facts[0]["mixed"] == facts[0]["expected"]


@every_size
def test_b21_broadcast_reducescatter_and_barrier_are_never_cached(ranks: int) -> None:
    for facts in facts_of(ranks, never_cached):
        assert all(slow >= 1 for name in ("broadcast", "reducescatter", "barrier") for slow in facts[name])
        assert facts["allgather"] == [0, 0]


@every_size
def test_b22_61_entries_make_one_word_62_two(ranks: int) -> None:
    assert [facts["words"] for facts in facts_of(ranks, many_words)] == [[1, 2, 4]] * ranks


@every_size
def test_b23_a_shutdown_travels_in_an_idle_fast_cycle(ranks: int) -> None:
    assert facts_of(ranks, end) == [{"running": False, "slow": 0, "failure": None}] * ranks


@every_size
def test_b24_the_fast_path_fuses_as_the_coordinator_did(ranks: int) -> None:
    """Threshold 512 B: a + b fill it to the byte, c and d likewise; e is larger than that."""
    for facts in facts_of(ranks, as_told):
        assert facts["fused"] == [[("a", "b"), ("c", "d"), ("e",), ("f", "g")]] * 3


@every_size
def test_b25_bits_are_renumbered_least_recently_used_first(ranks: int) -> None:
    facts = facts_of(ranks, as_told)
    assert all_equal(facts, "after", "digest")
    assert facts[0]["before"] == list("abcdefg")
    assert facts[0]["after"] == list("adefgbc")
    assert [each["slow"] for each in facts] == [0] * ranks


def one_too_many() -> list[dict[str, int]]:
    """b17: nine names one after the other with room for eight; then eight of them."""
    engine, watch = watched(cache_capacity=8)

    def in_turn(names: list[str], rounds: int) -> None:
        for name in names * rounds:
            step(engine, [name])

    counted = []
    for names in (NAMES[:9], NAMES[:8]):
        in_turn(names, 2)
        counted.append(watch.during(lambda names=names: in_turn(names, 3)))  # type: ignore[misc]
    engine.shut_down()
    return counted


@every_size
def test_b17_one_name_more_than_the_capacity_misses_always(ranks: int) -> None:
    for thrashing, fitting in run(ranks, one_too_many):
        assert thrashing["hits"] == 0
        assert thrashing["slow_cycles"] >= 3 * 9
        assert fitting["hits"] == 3 * 8
        assert fitting["slow_cycles"] == 0


def without_cache() -> dict[str, int]:
    """b18: :func:`step` looks at the results."""
    engine, watch = watched(control_plane="coordinator")
    step(engine, NAMES)
    counted = watch.during(lambda: [step(engine, NAMES) for _ in range(5)])
    engine.shut_down()
    return counted


@every_size
def test_b18_without_a_cache_every_cycle_is_slow(ranks: int) -> None:
    """A gather and a broadcast, no AND: each of ours is one message a link, and Horovod's two."""
    for counted in run(ranks, without_cache):
        assert counted["slow_cycles"] == counted["cycles"] > 0
        assert counted["exchanges"] == 2 * counted["cycles"]
        assert counted["hits"] == 0
        assert counted["tensors"] == 5 * len(NAMES)
