"""Another batch, shared input, another control plane, groups: what changes in a recorded step, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordsim.analyse.predict import measured_workload
from coordsim.analyse.predict.changes import Batch, Changes, batch_of, changed_step, changed_workload
from coordsim.analyse.predict.typical import TypicalStep, typical_step
from coordsim.errors import InputError
from tests.analyse.predict.played import COMPUTING, MS, SLEEPING


@pytest.fixture(scope="module")
def computing() -> TypicalStep:
    return typical_step(replace(COMPUTING, input_ms=8).records(2))


def spent_ms(found: TypicalStep, *parts: str) -> float:
    return sum(piece.cpu_ns + piece.sleep_ns for piece in found.pieces if piece.part in parts) / MS


def test_compute_follows_the_batch_and_the_optimizer_does_not(computing):
    doubled = changed_step(computing, Changes(2, Batch(16, 32)))
    assert spent_ms(doubled, "forward", "backward") == pytest.approx(2 * spent_ms(computing, "forward", "backward"))
    assert spent_ms(doubled, "input_stall") == pytest.approx(2 * spent_ms(computing, "input_stall"))
    assert spent_ms(doubled, "optimizer") == spent_ms(computing, "optimizer")


def test_a_fixed_time_stays(computing):
    before = spent_ms(computing, "forward", "backward")
    halved = changed_step(computing, Changes(2, Batch(32, 16, 10 * MS)))
    assert spent_ms(halved, "forward", "backward") == pytest.approx(10 + (before - 10) / 2)


def test_shared_storage_makes_more_ranks_wait_longer(computing):
    shared = changed_step(computing, Changes(8, input_law="shared"))
    assert spent_ms(shared, "input_stall") == pytest.approx(4 * spent_ms(computing, "input_stall"))
    assert spent_ms(changed_step(computing, Changes(8)), "input_stall") == spent_ms(computing, "input_stall")


def test_a_workload_for_a_cluster_changes_alike():
    found = measured_workload(replace(COMPUTING, input_ms=8).records(2))
    changed = changed_workload(found, Changes(4, Batch(16, 32), "shared"))
    assert found.input_ns is not None
    assert changed.input_ns == pytest.approx(4 * found.input_ns, rel=1e-6)
    assert changed.backward.value == pytest.approx(2 * found.backward.value)
    assert changed.gradients[-1].ready_ns == pytest.approx(2 * found.gradients[-1].ready_ns, rel=1e-6)
    assert changed.optimizer_ns == found.optimizer_ns


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [((8, None, None, None), None), ((8, 32, None, 16), Batch(16, 32)), ((8, None, 64, 16), Batch(16, 8))],
)
def test_the_batch_that_is_asked_for(asked, wanted):
    assert batch_of(*asked) == wanted


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ((8, 0, None, 16), "--batch: 0 samples: at least 1"), ((8, None, 0, 16), "--global-batch: 0 samples"),
        ((8, 4, None, 0), "--recorded-batch: 0 samples"), ((8, 4, None, None), "say --recorded-batch"),
        ((8, 4, 32, 16), "excludes --batch"), ((8, None, 33, 16), "nearest: 32 and 40"),
        ((8, None, 3, 16), r"by 8 ranks \(nearest: 8\)"),
    ],
)  # fmt: skip
def test_a_batch_that_makes_no_sense_is_one_error(asked, told):
    with pytest.raises(InputError, match=told):
        batch_of(*asked)


def test_another_control_plane_is_agreed_on_over_coord():
    found = typical_step(SLEEPING.records(2))
    cached = changed_step(found, Changes(2, control_plane="cached"))
    assert (cached.backend, [call.requests for call in cached.calls]) == ("coord", [0, 0])
    asking = changed_step(found, Changes(2, control_plane="coordinator"))
    assert all(call.requests for call in asking.calls)
    assert not any(call.agreed for call in changed_step(found, Changes(2, control_plane="ideal")).calls)
    assert changed_step(found, Changes(2, control_plane="ddp")) == found


def test_a_control_plane_that_is_none_is_refused():
    with pytest.raises(InputError, match="is not a control plane"):
        changed_step(typical_step(SLEEPING.records(2)), Changes(2, control_plane="cashed"))


def test_groups_are_one_collective_each_when_their_last_member_is_ready():
    found = replace(typical_step(SLEEPING.records(2)), framework="", plane="cached", backend="coord")
    one = changed_step(found, Changes(2, groups="1")).calls
    assert [(call.nbytes, call.after) for call in one] == [(2 << 20, found.gradients[-1].after)]
    assert len(changed_step(found, Changes(2, groups="layer")).calls) == 2
    assert len(changed_step(found, Changes(2, groups="none")).calls) == 2


@pytest.mark.parametrize(
    ("framework", "plane", "groups", "told"),
    [("ddp", "ddp", "4", "buckets or shards of its own"), ("", "ddp", "4", "nobody groups"),
     ("", "cached", "some", "neither none, layer nor a count")],
)  # fmt: skip
def test_groups_that_make_no_sense_are_one_error(framework, plane, groups, told):
    found = replace(typical_step(SLEEPING.records(2)), framework=framework, plane=plane, backend="coord")
    with pytest.raises(InputError, match=told):
        changed_step(found, Changes(2, groups=groups))
