"""Behaviour 35: gradients become units of submission, and a parameter that is not used holds up nobody."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import replace

import pytest

from coordsim.protocol.groups import GroupTable, equal_parts
from coordsim.protocol.submission import StepUnits, Unit
from tests.protocol.data import DataJob
from tests.protocol.drive import KINDS, Job, settings, tensor

every_kind = pytest.mark.parametrize("kind", KINDS)
NAMES = ("fc.weight", "fc.bias", "conv.weight", "conv.bias", "stem")
GROUPINGS = {
    "none": (), "one": equal_parts(NAMES, 1), "k": equal_parts(NAMES, 3), "all alone": equal_parts(NAMES, 5),
    "list": [("stem", "fc.bias"), ("conv.weight", "conv.bias")],
}  # fmt: skip


def backward(job: DataJob, rank: int, units: StepUnits, unused: Collection[str], seed: int, value: float) -> None:
    """Hooks in an order of this rank's own; then what the optimizer's synchronize submits."""

    def submit(unit: Unit) -> None:
        data = []
        for name in unit.names:
            request = replace(tensor(name, 2), group=job.settings.groups.digest(name))
            data.append((request, [0.0 if name in unit.absent else value] * 2))
        job.put(rank, *data)

    used = [name for name in NAMES if name not in unused]
    for name in random.Random(seed).sample(used, len(used)):
        unit = units.ready(name)
        if unit is not None:
            submit(unit)
    job.cycle()
    for unit in units.rest():
        submit(unit)


@every_kind
@pytest.mark.parametrize("strict", [False, True], ids=["loose", "strict"])
@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("unused", [("conv.bias",), ("fc.weight", "stem"), NAMES], ids=["one", "two", "all"])
def test_b35_a_parameter_unused_on_one_rank_does_not_deadlock(
    kind: str, grouping: str, strict: bool, unused: tuple[str, ...]
) -> None:
    """Its gradient counts as zeros there; the others' are averaged with them. Steps with and without it take turns."""
    groups = tuple(GROUPINGS[grouping])
    job = DataJob(kind, settings(3, groups=groups, strict=strict), through_wire=True)
    units = [StepUnits(NAMES, job.settings.groups) for _ in job.ranks]
    for step, absent in enumerate(((), unused, unused, ())):
        for rank in job.ranks:
            backward(job, rank, units[rank], absent if rank == 1 else (), 10 * step + rank, 3.0 * (rank + 1))
        job.cycle()
        for handles in job.handles:
            for name in NAMES:
                assert handles[name].wait() == [4.0 if name in absent else 6.0] * 2, (step, name)
    job.watch.job_done()
    if kind == "cached":
        assert not job.cycle().slow
        assert {each.invalidated for each in job.schedules} == {False}, "zeros are no other request"


def test_b35_submitting_members_under_names_of_their_own_does_deadlock() -> None:
    """What Horovod's optimizer does on the rank without the gradient: the reason for the rule."""
    job = Job("coordinator", settings(2, groups=[("a", "b")]))
    job.submit(0, tensor("grouped.a_1of2"), tensor("grouped.a_2of2"))
    job.submit(1, tensor("a"))
    job.submit(1, tensor("b"))
    for _ in range(10):
        assert job.cycle().responses == ()


def test_a_unit_is_complete_with_its_last_gradient() -> None:
    units = StepUnits("abcd", GroupTable((("c", "a"),)))
    assert units.ready("a") is None
    assert units.ready("b") == Unit(("b",))
    assert units.ready("c") == Unit(("c", "a")), "registration order, whichever came last"
    assert units.rest() == [Unit(("d",), frozenset("d"))]
    assert units.rest() == [
        Unit(("b",), frozenset("b")), Unit(("c", "a"), frozenset("ac")), Unit(("d",), frozenset("d"))
    ]  # fmt: skip
    assert units.ready("a") is None
    assert units.rest()[1:] == [Unit(("c", "a"), frozenset("c")), Unit(("d",), frozenset("d"))]


def test_what_cannot_be_a_gradient_of_this_step_is_refused() -> None:
    units = StepUnits("ab", GroupTable((("a", "b"),)))
    units.ready("a")
    with pytest.raises(ValueError, match="'a' was ready twice in one step"):
        units.ready("a")
    units.ready("b")
    with pytest.raises(ValueError, match="'b' was ready twice in one step"):
        units.ready("b")
    with pytest.raises(ValueError, match="'x' is no parameter"):
        units.ready("x")
    with pytest.raises(ValueError, match="group names unknown tensor 'b'"):
        StepUnits("a", GroupTable((("a", "b"),)))
