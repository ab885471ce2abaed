"""Which engine runs, what is refused before anything is allocated, and what a simulation offers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from coordsim.analyse.assumptions import assumptions
from coordsim.errors import InputError, Refused
from coordsim.record.breakdown import PARTS
from coordsim.record.trace import difference
from coordsim.scenario.model import CONTROL_PLANES, Scenario
from coordsim.simulate import engine, event, vector
from coordsim.simulate.engine import Simulation, simulate
from coordsim.simulate.vector import refusals
from tests.scenarios import PLANE, scenario, tensors, workload


def test_auto_is_the_vector_engine() -> None:
    assert simulate(scenario()).engine == simulate(scenario(), "auto").engine == "vector"


def test_both_by_name_give_the_same() -> None:
    one, other = simulate(scenario(), "vector"), simulate(scenario(), "event")
    assert (one.engine, other.engine) == ("vector", "event")
    assert difference(one.trace, other.trace) is None
    assert one.breakdown() == other.breakdown()


@pytest.mark.parametrize("name", ["auto", "event"])
def test_debug_needs_the_event_engine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, run = [], event.run
    monkeypatch.setattr(event, "run", lambda problem, debug, progress: (seen.append(debug), run(problem, debug))[1])
    assert simulate(scenario(2, 1), name, debug=True).engine == "event"
    assert seen == [True]


def test_the_vector_engine_has_no_debug_mode() -> None:
    with pytest.raises(InputError, match="no debug mode; allowed: auto, event"):
        simulate(scenario(2, 1), "vector", debug=True)


@pytest.mark.parametrize("name", ["", "Vector", "vectors", "simpy"])
def test_an_unknown_engine_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_to_start(monkeypatch)
    with pytest.raises(InputError, match=f"--engine: no engine '{name}'; allowed: auto, event, vector") as caught:
        simulate(scenario(), name)
    assert not isinstance(caught.value, Refused)


class Started(Exception):
    """The engine choice let a scenario through."""


def refuse_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def problem(_: Scenario) -> None:
        raise Started

    monkeypatch.setattr(engine, "Problem", problem)


def of_size(ranks: int, count: int, steps: int) -> Scenario:
    return scenario(ranks, steps, workload=workload(tensors=tensors([1000] * count)))


LAST_AND_FIRST = [
    # engine, the last that is let through, the first that is refused, what it says
    ("event", of_size(50_000, 400, 9), of_size(50_000, 400, 10), r"50,000 ranks x 400 tensors x 11 steps .* vector"),
    ("event", of_size(520_000, 1, 1), of_size(530_000, 1, 1), r"530,000 ranks x 1 tensors would take .* 8 GiB"),
    ("vector", of_size(1 << 27, 32, 1), of_size((1 << 27) + 1, 32, 1), r"134,217,729 ranks .* 16 GiB"),
    ("vector", of_size(10**6, 10, 10**6 - 1), of_size(10**6, 10, 10**6), r"1,000,001 steps .* simulate fewer steps"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "last", "first", "message"), LAST_AND_FIRST)
def test_what_is_too_large_is_refused_before_it_begins(
    name: str, last: Scenario, first: Scenario, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_start(monkeypatch)
    with pytest.raises(Started):
        simulate(last, name)
    with pytest.raises(Refused, match=message):
        simulate(first, name)


def test_limits_are_those_of_the_engine_that_would_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """``debug`` takes the event engine's limits, ``auto`` the vector engine's."""
    refuse_to_start(monkeypatch)
    described = of_size(50_000, 400, 10)
    with pytest.raises(Started):
        simulate(described)
    with pytest.raises(Refused, match=r"--engine: .*event"):
        simulate(described, debug=True)
    with pytest.raises(Refused, match="--ranks: "):
        simulate(of_size(1 << 30, 32, 1))


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("plane", CONTROL_PLANES)
@pytest.mark.parametrize("engine", ["vector", "event"])
def test_progress_counts_every_step_once(ranks: int, plane: str, engine: str) -> None:
    """The cold step too."""
    calls: list[tuple[int, int]] = []
    described = scenario(ranks, 3, control_plane=replace(PLANE, name=plane))
    simulate(described, engine, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_an_exception_in_progress_ends_the_run() -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(scenario(), progress=stop)


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(scenario(6, 5, 11, control_plane=replace(PLANE, name="coordinator")))


def test_steps_is_a_table_of_integers(simulation: Simulation) -> None:
    steps = simulation.steps
    assert list(steps.columns) == ["step_time_ns", *(f"{name}_ns" for name in PARTS)]
    assert isinstance(steps.index, pd.RangeIndex)
    assert steps.index.tolist() == [1, 2, 3, 4, 5]
    assert steps.index.name == "step"
    assert set(steps.dtypes) == {np.dtype(np.int64)}
    assert (steps.drop(columns="step_time_ns").sum(axis=1) == steps["step_time_ns"]).all()
    assert (steps["step_time_ns"].to_numpy() == simulation.step_ns).all()
    assert steps["control_work_ns"].gt(0).all()


def test_the_cold_step_is_kept_apart(simulation: Simulation) -> None:
    ends = simulation.trace.steps["end_ns"].tolist()
    assert simulation.first_step_ns == ends[0]
    assert simulation.step_ns.tolist() == [after - before for before, after in pairwise(ends)]
    assert simulation.step_time_s == pytest.approx((ends[-1] - ends[0]) / 5 / 1e9)
    assert all(part.size == 6 for part in simulation.parts.values())


def test_breakdown_is_the_mean_of_the_steps_in_seconds(simulation: Simulation) -> None:
    means = simulation.steps.mean()
    assert simulation.breakdown() == pytest.approx({name: means[f"{name}_ns"] / 1e9 for name in PARTS})
    assert sum(simulation.breakdown().values()) == pytest.approx(simulation.step_time_s, rel=1e-12)
    assert simulation.wall_s > 0


@pytest.mark.parametrize("run", [lambda s: simulate(s, "event"), lambda s: simulate(s, "vector")])
def test_same_seed_same_trace_other_seed_another(run: Callable[[Scenario], Simulation]) -> None:
    assert run(scenario(seed=4)).trace.digest() == run(scenario(seed=4)).trace.digest()
    assert run(scenario(seed=4)).trace.digest() != run(scenario(seed=5)).trace.digest()


def test_the_vector_engine_runs_where_simpy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """``auto`` neither falls back nor checks itself against the other engine."""
    monkeypatch.setattr(event, "run", None)
    assert simulate(scenario()).engine == "vector"
    monkeypatch.undo()
    monkeypatch.setattr(vector, "run", None)
    assert simulate(scenario(), "event").engine == "event"


def refuse_odd_seeds(scenario: Scenario) -> refusals.Refusal | None:
    because = "the vector engine likes even numbers"
    return refusals.Refusal("seed", scenario.seed, because) if scenario.seed % 2 else None


def test_what_the_vector_engine_refuses_goes_to_the_event_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """``vector`` is refused by key and sentence; ``auto`` takes the event engine, with its limits, and says so."""
    monkeypatch.setattr(refusals, "CHECKS", (*refusals.CHECKS, refuse_odd_seeds))
    assert simulate(scenario(2, 1, seed=2)).engine == "vector"
    odd = scenario(2, 1, seed=1)
    assert simulate(odd).engine == simulate(odd, "event").engine == "event"
    with pytest.raises(Refused, match=r"^--engine: seed: the vector engine likes even numbers$"):
        simulate(odd, "vector")
    assert "simulated event by event: the vector engine likes even numbers (seed)" in assumptions(odd)
    assert not any("event by event" in line for line in assumptions(replace(odd, seed=2)))
    with pytest.raises(Refused, match=r"event engine's .*; simulate fewer steps"):
        simulate(replace(of_size(50_000, 400, 10), seed=1))


@pytest.mark.parametrize("key", ["ranks", "steps"])
def test_a_scenario_made_in_code_needs_ranks_and_steps(key: str) -> None:
    with pytest.raises(InputError, match=f"{key}: must be at least 1"):
        simulate(replace(scenario(), **{key: 0}))


def test_a_file_name_is_no_scenario() -> None:
    with pytest.raises(InputError, match=r"a str is no scenario; Scenario\.load"):
        simulate("job.toml")  # type: ignore[arg-type]
