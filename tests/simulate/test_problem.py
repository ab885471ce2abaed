"""A scenario in protocol words: units, groups, sizes, DDP's buckets, the input floor."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordsim.protocol.groups import member_digest
from coordsim.protocol.messages import DType, RequestList, Response, ResponseList
from coordsim.scenario.model import Groups, Scenario, Tensor
from coordsim.simulate.problem import Problem
from tests.scenarios import CLUSTER, MACHINE, PLANE, scenario, tensors, workload

MIB = 1 << 20


def grouped(groups: Groups, name: str = "cached", made: tuple[Tensor, ...] = ()) -> Problem:
    job = workload(tensors=made or tensors([1000] * 6))
    return Problem(scenario(control_plane=replace(PLANE, name=name, groups=groups), workload=job))


def test_without_groups_every_tensor_is_a_unit() -> None:
    problem = grouped(Groups())
    assert problem.units == [("t0",), ("t1",), ("t2",), ("t3",), ("t4",), ("t5",)]
    assert problem.last_member.tolist() == [0, 1, 2, 3, 4, 5]


def test_units_are_ordered_by_their_last_member() -> None:
    """t0 waits for t4; t1 and t3 are ready before both."""
    problem = grouped(Groups("explicit", 0, (("t0", "t4"), ("t3", "t1"))))
    # registered in reverse, so members stand in falling order
    assert problem.units == [("t2",), ("t3", "t1"), ("t4", "t0"), ("t5",)]
    assert problem.last_member.tolist() == [2, 3, 4, 5]


def test_members_stand_in_registration_order_whatever_the_scenario_says() -> None:
    made = tensors([1000] * 6)
    places = [3, 0, 5, 1, 4, 2]
    made = tuple(replace(tensor, registration=place) for tensor, place in zip(made, places, strict=True))
    expected = ("t1", "t3", "t5", "t0", "t4", "t2")
    for members in (("t0", "t1", "t2", "t3", "t4", "t5"), ("t5", "t3", "t1", "t4", "t2", "t0")):
        assert grouped(Groups("explicit", 0, (members,)), made=made).units == [expected]
    assert grouped(Groups("count", 1), made=made).units == [expected]


def test_equal_parts_follow_registration_not_readiness() -> None:
    made = tensors([1000] * 7)
    problem = grouped(Groups("count", 3), made=made)
    # registered t6 ... t0: parts of 3, 2, 2
    assert set(problem.units) == {("t6", "t5", "t4"), ("t3", "t2"), ("t1", "t0")}
    assert problem.last_member.tolist() == [1, 3, 6]


def test_layers() -> None:
    problem = grouped(Groups("layer"))
    assert problem.units == [("t2", "t1", "t0"), ("t5", "t4", "t3")]


def test_ddp_ignores_groups() -> None:
    problem = grouped(Groups("count", 2, strict=True), "ddp")
    assert len(problem.units) == 6
    assert not problem.groups.strict
    assert {request.group for request in problem.requests.values()} == {0}


def test_strict_groups_are_known_by_their_members() -> None:
    groups = Groups("explicit", 0, (("t0", "t1"), ("t2",)), strict=True)
    found = {name: request.group for name, request in grouped(groups).requests.items()}
    assert found.pop("t0") == found.pop("t1") == member_digest(["t1", "t0"]) != 0
    assert set(found.values()) == {0}, "a member alone, and those in no group, need no digest"
    loose = grouped(replace(groups, strict=False))
    assert {request.group for request in loose.requests.values()} == {0}
    assert len(loose.units) == 5


def test_requests_say_what_the_workload_says() -> None:
    problem = grouped(Groups(), made=tensors([1000], [77], "float16"))
    request = problem.requests["t0"]
    assert (request.name, request.dtype, request.shape, request.nbytes) == ("t0", DType.FLOAT16, (77,), 154)


def test_backward_is_the_time_between_gradients() -> None:
    made = tensors([500, 0, 70, 1])
    assert grouped(Groups(), made=made).backward_ns.tolist() == [500, 0, 70, 1]


@pytest.mark.parametrize(("ranks", "local"), [(2, 2), (6, 6), (100, 6)])
def test_threshold_is_rounded_for_the_ranks_of_a_node(ranks: int, local: int) -> None:
    problem = Problem(scenario(ranks, control_plane=replace(PLANE, fusion_threshold_bytes=1)))
    assert problem.settings.fusion_threshold_bytes == local * 512


def test_a_cycle_time_of_zero_is_one_nanosecond() -> None:
    assert Problem(scenario(control_plane=replace(PLANE, cycle_time_ns=0))).cycle_ns == 1
    assert Problem(scenario(control_plane=replace(PLANE, cycle_time_ns=5))).cycle_ns == 5


def test_list_sizes_are_sums() -> None:
    """Horovod's: 25 + (56 + "t0\\0" padded to 4 + 8) a request; 25 + (80 + 4 N) a response + 20 a name."""
    problem = Problem(scenario(10))
    requests = tuple(problem.requests.values())
    assert problem.request_list_bytes(RequestList(0, ())) == 25
    assert problem.request_list_bytes(RequestList(0, requests[:3])) == 25 + 3 * 68
    singles = [Response(request.op, (request.name,), (request.nbytes,), request.dtype) for request in requests]
    fused = singles[0].joined_with(singles[1:3])
    assert problem.response_list_bytes(ResponseList((fused, singles[3]))) == 25 + 2 * 120 + 4 * 20
    assert problem.schedule_bytes(iter(())) == 25


class TestInputFloor:
    """5.5 GB/s a node, so 11,000 B take 2 us; a batch of 4 samples for each of the node's ranks."""

    JOB = workload(sample_bytes=11_000, batch=4)

    @pytest.mark.parametrize(("ranks", "readers"), [(1, 1), (5, 5), (6, 6), (50, 6)])
    def test_a_node_reads_for_its_ranks(self, ranks: int, readers: int) -> None:
        assert Problem(scenario(ranks, workload=self.JOB)).input_ns == 2000 * 4 * readers

    def test_switched_off(self) -> None:
        assert Problem(scenario()).input_ns == 0
        diskless = replace(CLUSTER, machine=replace(MACHINE, node_read_Bps=0))
        assert Problem(scenario(workload=self.JOB, cluster=diskless)).input_ns == 0

    def test_reading_begins_with_the_step_before(self) -> None:
        problem = Problem(scenario(6, workload=self.JOB))  # 48 us
        assert problem.next_start_ns(100_000, 147_999) == 148_000
        assert problem.next_start_ns(100_000, 148_000) == 148_000
        assert problem.next_start_ns(100_000, 170_000) == 170_000


def buckets(elements: list[int], dtypes: list[str] | None = None, **changes: int) -> list[tuple[tuple[int, ...], int]]:
    """(units, bytes) of each bucket."""
    made = tensors([1000] * len(elements), elements)
    if dtypes:
        made = tuple(replace(tensor, dtype=dtype) for tensor, dtype in zip(made, dtypes, strict=True))
    plane = replace(PLANE, name="ddp", **changes)
    described: Scenario = scenario(control_plane=plane, workload=workload(tensors=made))
    found = Problem(described).buckets
    names = [name for bucket in found for name in bucket.response.names]
    assert names == [tensor.name for tensor in made], "every tensor once, in ready order"
    return [(bucket.units, bucket.response.nbytes) for bucket in found]


HALF = MIB // 8
"""Elements of half a MiB of float32."""


def test_the_first_bucket_closes_at_one_mib_and_later_ones_at_25() -> None:
    assert buckets([HALF] * 60) == [
        ((0, 1), MIB),
        (tuple(range(2, 52)), 25 * MIB),
        (tuple(range(52, 60)), 4 * MIB),
    ]


def test_a_bucket_closes_with_the_tensor_that_reaches_its_limit() -> None:
    """One byte short stays open and then exceeds the limit; a large tensor is never split."""
    nearly = HALF * 2 - 1
    assert buckets([nearly, 1, HALF]) == [((0, 1), MIB), ((2,), MIB // 2)]
    assert buckets([nearly, HALF, HALF])[0] == ((0, 1), 4 * nearly + MIB // 2)
    assert buckets([30 * HALF, 1])[0] == ((0,), 15 * MIB)
    huge = [1, HALF * 2, 60 * HALF, 1]
    assert buckets(huge) == [((0, 1), MIB + 4), ((2,), 30 * MIB), ((3,), 4)]


def test_nothing_follows_a_bucket_that_the_last_tensor_closes() -> None:
    assert buckets([HALF, HALF]) == [((0, 1), MIB)]


def test_a_change_of_dtype_closes_a_bucket() -> None:
    kinds = ["float32", "float32", "float16", "float16", "float32"]
    assert buckets([10] * 5, kinds) == [((0, 1), 80), ((2, 3), 40), ((4,), 40)]


def test_only_the_first_bucket_has_the_first_limit() -> None:
    """Also when a change of dtype closed it early."""
    sizes = {"first_bucket_bytes": 40, "bucket_bytes": 100}
    assert buckets([10] * 5, **sizes) == [((0,), 40), ((1, 2, 3), 120), ((4,), 40)]
    kinds = ["float16", "float32", "float32", "float32", "float32"]
    assert buckets([10] * 5, kinds, **sizes) == [((0,), 20), ((1, 2, 3), 120), ((4,), 40)]
