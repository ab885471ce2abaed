"""Collectives by their algorithms, their costs from timings alone, and the table in which a cluster file keeps them."""

from __future__ import annotations

import pytest

from coordsim.analyse.calibrate.collectives import alone_ns, collectives
from coordsim.analyse.predict.backends import backend_costs
from coordsim.analyse.predict.collectives import CollectiveCosts, Costs, collective, cpu_ns
from coordsim.analyse.predict.here import ASSUMED, MEASURED
from coordsim.errors import InputError
from coordsim.protocol.messages import Op
from coordsim.record.measurement import Measurement, Series
from real_backend.measure.host import merged_collectives

TRUE = Costs(fixed_ns=60_000, hop_ns=150_000, byte_ps=400, start_ns=300_000, wait_ns=80_000)
MIB = 1 << 20


def stages(backend: str, nbytes: int, ranks: int, operation: Op = Op.ALLREDUCE) -> int:
    return len(collective(backend, int(operation), nbytes, ranks, TRUE).stages)


def test_gloo_goes_round_a_ring_twice_and_gathers_once():
    assert [stages("gloo", MIB, ranks) - 1 for ranks in (2, 3, 8)] == [2, 4, 14]
    assert stages("gloo", MIB, 8, Op.ALLGATHER) - 1 == 7
    assert stages("gloo", MIB, 8, Op.REDUCESCATTER) == stages("gloo", MIB, 8)


def test_a_rings_bytes_are_shared_out_and_its_hops_are_not():
    def cost(ranks: int, **only: float) -> float:
        costs = Costs(0, 0, 0, 0, 0)._replace(**only)
        return cpu_ns(collective("gloo", int(Op.ALLREDUCE), MIB, ranks, costs), ranks)

    assert cost(8, byte_ps=1_000) / cost(2, byte_ps=1_000) == pytest.approx(14 / 8, rel=1e-3)
    assert cost(8, hop_ns=1_000) == 14_000


def test_coord_takes_data_along_then_another_round_then_the_nodes_memory():
    small, medium, large = (stages("coord", nbytes, 4) for nbytes in (1 << 10, 1 << 19, 1 << 24))
    assert (small, medium) == (1 + 3, 1 + 6)
    assert large == 1 + 3 + 3 * 3 + 2


def test_asking_costs_rank_0_each_request():
    plain, asked = (
        collective("coord", int(Op.ALLREDUCE), 1 << 19, 4, TRUE, requests=requests).stages for requests in (0, 10)
    )
    assert asked[2].root_cpu_ns - plain[2].root_cpu_ns == 3 * 10 * 15_000


def test_one_rank_reduces_with_nobody():
    assert stages("gloo", MIB, 1) == stages("coord", MIB, 1) == 1


def measured(backend: str = "gloo") -> Measurement:
    """Timings of a machine whose costs are known, on two cores."""
    series = []
    for ranks in (2, 3, 4, 8):
        for nbytes in (4 << 10, 256 << 10, 2 << 20):
            path = f"{backend}/ALLREDUCE"
            wall = alone_ns(Series("collective", ranks, (1.0,), nbytes, path=path), TRUE, 2)
            cpu = cpu_ns(collective(backend, int(Op.ALLREDUCE), nbytes, ranks, TRUE), ranks)
            for what, ns in (("collective", wall), ("collective_cpu", cpu)):
                samples = tuple(ns * (1 + 0.01 * (index % 5 - 2)) for index in range(20))
                series.append(Series(what, ranks, samples, nbytes, path=path))
    return Measurement("MEASURED", {"name": "made", "cores": 2}, {"date": "2026-11-29"}, tuple(series))


@pytest.mark.parametrize("backend", ["gloo", "coord"])
def test_costs_come_back_from_their_timings(backend):
    estimates, found = collectives(measured(backend))
    assert (found.backend, found.cores, found.ranks, found.largest_bytes) == (backend, 2, (2, 3, 4, 8), 2 << 20)
    for name in ("hop_ns", "byte_ps"):
        assert getattr(found.costs, name) == pytest.approx(getattr(TRUE, name), rel=0.05)
    latency = found.costs.start_ns + 10 * found.costs.wait_ns
    assert latency == pytest.approx(TRUE.start_ns + 10 * TRUE.wait_ns, rel=0.15)
    names = ("fixed", "hop", "byte", "start", "wait")
    assert [each.key for each in estimates] == [f"collectives.{name}" for name in names]


def test_ranks_stamps_are_walls_from_last_entrance_to_last_exit():
    def call(entered: list[int], left: list[int], cpu: list[int]) -> dict[str, object]:
        return {"operation": "ALLREDUCE", "nbytes": 4, "entered_ns": entered, "left_ns": left, "cpu_ns": cpu}

    found = merged_collectives([[call([0, 90], [50, 130], [10, 20])], [call([30, 80], [60, 120], [30, 40])]], "gloo")
    assert [(each.what, each.samples_ns) for each in found] == [
        ("collective", (30.0, 40.0)), ("collective_cpu", (20.0, 30.0)),
    ]  # fmt: skip


def test_a_table_is_read_as_it_was_written():
    _, found = collectives(measured())
    again = CollectiveCosts.read(found.table(), "cluster.toml")
    assert again.costs == tuple(pytest.approx(value, rel=2e-3, abs=1) for value in found.costs)
    assert (again.ranks, again.backend, again.date) == (found.ranks, found.backend, found.date)


@pytest.mark.parametrize(("key", "value"), [("hop", "fast"), ("cores", "0"), ("ranks", "2, many"), ("byte", "1GB")])
def test_a_table_that_is_wrong_is_one_error_with_its_key(key, value):
    table = collectives(measured())[1].table() | {key: value}
    with pytest.raises(InputError, match=rf"cluster\.toml: cluster\.collectives\.{key}"):
        CollectiveCosts.read(table, "cluster.toml")


def test_a_table_that_lacks_a_key_says_which():
    table = collectives(measured())[1].table()
    del table["wait"]
    with pytest.raises(InputError, match=r"collectives\.wait: is missing"):
        CollectiveCosts.read(table, "cluster.toml")


def test_a_calibration_of_the_backend_is_less_doubted_than_another_machines():
    _, found = collectives(measured())
    assert backend_costs("gloo", found).doubt == MEASURED
    assert backend_costs("coord", found).doubt == ASSUMED
    assert "not timed on this machine" in backend_costs("coord", None).source


def test_a_backend_without_a_law_is_refused_with_what_to_do():
    with pytest.raises(InputError, match="--cluster NAME"):
        backend_costs("nccl", None)
