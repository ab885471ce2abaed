"""Errors planted in what the vector engine does about data waits and orders; the differential test catches each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coordsim.cost.orders import shuffled_places
from coordsim.scenario.model import Groups, Scenario
from coordsim.simulate.vector import planes, shuffled, steps
from coordsim.simulate.vector.readiness import ReadySteps
from coordsim.simulate.vector.stream import DataWait
from tests.differential.test_orders import RAGGED
from tests.differential.test_orders import shuffled as by_rank
from tests.differential.test_planted_errors import Plant, must_be_caught
from tests.differential.test_two_clocks import early
from tests.scenarios import PLANE, scenario, tensors, two_clock_scenario, workload

execute, data_wait, count = steps.execute, DataWait, shuffled.ShuffledCoordinator._count


def ahead(wait: str, **plane: object) -> Scenario:
    """Hooks at the start of backward; gradients far apart, on ragged ranks."""
    job = workload(tensors=tensors([3_000_000] * 6), forward_ns=1_000_000)
    return early(scenario(5, 2, workload=job, noise=RAGGED, control_plane=replace(PLANE, **plane)), 10, wait)


def plant_nobody_waits(patch: pytest.MonkeyPatch) -> Scenario:
    patch.setattr(steps, "execute", lambda *arguments: execute(*arguments[:5]))
    return ahead("stream")


def plant_host_taken_for_stream(patch: pytest.MonkeyPatch) -> Scenario:
    """The launch is not later, only the collective."""
    patch.setattr(steps, "DataWait", lambda who, exist, enter: data_wait("stream", exist, enter))
    return ahead("host")


def plant_stream_taken_for_host(patch: pytest.MonkeyPatch) -> Scenario:
    patch.setattr(steps, "DataWait", lambda who, exist, enter: data_wait("host", exist, enter))
    return ahead("stream")


def plant_shadow_of_the_exchange(patch: pytest.MonkeyPatch) -> Scenario:
    """A late launch keeps the exchange's shadow instead of A."""

    def run(costs: list, leave: int, shadow: int, free: int, blocking: bool, wait: DataWait) -> list:
        return execute(costs, leave, shadow, free, blocking, data_wait(wait.who, wait.exist_ns, shadow))

    patch.setattr(steps, "execute", run)
    return ahead("host", name="coordinator")


def plant_everybody_waits_for_the_slowest(patch: pytest.MonkeyPatch) -> Scenario:
    """All ranks finish a host's wait together."""

    def exist(self: ReadySteps, units: set[int]) -> np.ndarray:
        return np.full(self.exist.shape[1], self.exist_everywhere(units))

    patch.setattr(ReadySteps, "exist_on_ranks", exist)
    return ahead("host", cycle_time_ns=100_000)


def plant_finish_without_the_wait(patch: pytest.MonkeyPatch) -> Scenario:
    """The loop turns on although the launch had to wait."""
    patch.setattr(steps.Steps, "launched", lambda self, schedule, leave: leave)
    return ahead("host", cycle_time_ns=100_000)


def plant_hooks_behind_their_gradients(patch: pytest.MonkeyPatch) -> Scenario:
    """Submissions are not cut at existence. Seed 29: a list of hooks whose noise overtakes."""
    load = ReadySteps._by_unit

    def uncut(self: ReadySteps, latest: np.ndarray) -> None:
        hooks = self._hook_rows.copy()
        load(self, latest)
        if self._two_clocks:
            self.matrix, self.latest = hooks, hooks.max(axis=1).astype(np.int64)

    patch.setattr(ReadySteps, "_by_unit", uncut)
    return two_clock_scenario(29)


def plant_last_listed_member(patch: pytest.MonkeyPatch) -> Scenario:
    """A response exists when its last listed unit does, as if all ranks had one order."""
    patch.setattr(ReadySteps, "exist_on_ranks", lambda self, units: self.exist[max(units)].astype(np.int64))
    return by_rank(ahead("host", cycle_time_ns=100_000))


def plant_complete_in_listed_order(patch: pytest.MonkeyPatch) -> Scenario:
    """Newly complete units in the workload's order, not in that of the lists."""

    def listed(self: shuffled.ShuffledCoordinator, pattern: object, wake_ns: int) -> tuple:
        asked, schedule = count(self, pattern, wake_ns)
        place = {name: index for index, name in enumerate(self.problem.tensors)}
        return asked, tuple(sorted(schedule, key=lambda response: place[response.names[0]]))

    patch.setattr(shuffled.ShuffledCoordinator, "_count", listed)
    plane = replace(PLANE, name="coordinator", fusion_threshold_bytes=0)
    return by_rank(scenario(5, 2, noise=RAGGED, control_plane=plane))


def plant_one_order_for_all(patch: pytest.MonkeyPatch) -> Scenario:
    for name, counterpart in planes.COUNTERPARTS.items():
        patch.setitem(planes.COUNTERPARTS, name, counterpart._replace(shuffled=counterpart.plane))
    return by_rank(scenario(5, 2, noise=RAGGED))


def plant_rank_order_by_first_member(patch: pytest.MonkeyPatch) -> Scenario:
    """A group counts as complete with its first member."""

    def places(self: ReadySteps) -> object:
        problem = self._problem
        position = {name: index for index, name in enumerate(problem.tensors)}
        every = shuffled_places(problem.scenario.seed, self._step, 0, problem.ranks, len(problem.tensors))
        first = [every[:, [position[name] for name in unit]].min(axis=1) for unit in problem.units]
        yield slice(0, problem.ranks), np.array(first)

    patch.setattr(ReadySteps, "_places", places)
    return by_rank(scenario(5, 2, noise=RAGGED, control_plane=replace(PLANE, groups=Groups("layer"))))


PLANTS = [value for name, value in sorted(globals().items()) if name.startswith("plant_")]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__[6:])
def test_planted_error_is_caught(plant: Plant) -> None:
    must_be_caught(plant)
