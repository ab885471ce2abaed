"""Submission before existence, and who waits (docs/semantics.md 2.3 and 6.7): both engines, and numbers by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coordsim.errors import Refused
from coordsim.record.breakdown import breakdown, step_times
from coordsim.record.trace import Trace, difference
from coordsim.scenario.model import CONTROL_PLANES, Noise, Scenario, Spread
from coordsim.simulate import event, vector
from coordsim.simulate.problem import Problem
from tests.differential.test_engines_agree import assert_engines_agree
from tests.scenarios import CLUSTER, HOST, NEGOTIATED, PLANE, scenario, tensors, two_clock_scenario, workload

RAGGED = Noise(rank=Spread("normal", 200_000), tensor=Spread("exponential", 300_000))


@pytest.mark.parametrize("first", range(0, 40, 20))
def test_random_scenarios(first: int) -> None:
    for seed in range(first, first + 20):
        assert_engines_agree(two_clock_scenario(seed), debug=seed % 4 == 0)


def early(described: Scenario, share: int, wait: str, **plane: object) -> Scenario:
    """Hooks at ``share`` percent of each ready time."""
    job = described.workload
    made = tuple(replace(each, submit_ns=each.ready_ns * share // 100) for each in job.tensors)
    control = replace(described.control_plane, wait_for_data=wait, **plane)
    return replace(described, workload=replace(job, tensors=made), control_plane=control)


@pytest.mark.parametrize("plane", CONTROL_PLANES)
@pytest.mark.parametrize("wait", ["host", "stream"])
def test_nothing_waits_when_the_clocks_are_one(plane: str, wait: str) -> None:
    """The same run to the nanosecond as without anybody who could wait."""
    for data_plane in ("async", "blocking"):
        if (wait, data_plane) == ("stream", "blocking"):
            continue
        one_clock = scenario(5, noise=RAGGED, control_plane=replace(PLANE, name=plane, data_plane=data_plane))
        trace = assert_engines_agree(early(one_clock, 100, wait))
        assert difference(trace, vector.run(Problem(one_clock))) is None


def single(wait: str, plane: str = "coordinator", **changes: object) -> tuple[Trace, Scenario]:
    """One gradient, submitted with the start of backward; both engines. Step 1 is warm."""
    job = workload(tensors=tensors([20_000_000], [1_000_000]), forward_ns=1_500_000)
    described = early(scenario(4, 1, workload=job, noise=RAGGED), 0, wait, name=plane, **changes)
    return assert_engines_agree(described), described


@pytest.mark.parametrize("plane", [*NEGOTIATED, "ddp"])
def test_a_stream_hides_the_whole_negotiation(plane: str) -> None:
    """Launched long before R, begun at R: after R there is the collective, and nothing else."""
    trace, _ = single("stream", plane)
    parts, responses, steps = breakdown(trace), trace.responses, trace.steps
    assert (responses["launch_ns"] < steps["ready_last_ns"] - 5_000_000).all()
    np.testing.assert_array_equal(responses["begin_ns"], steps["ready_last_ns"])
    np.testing.assert_array_equal(parts["exposed_collective"], responses["collective_ns"])
    for name in ("cycle_wait", "control_exchange", "control_work", "fusion_copy"):
        assert not parts[name].any()


@pytest.mark.parametrize("data_plane", ["async", "blocking"])
@pytest.mark.parametrize("plane", NEGOTIATED)
def test_a_host_launches_when_the_last_rank_has_its_gradient(plane: str, data_plane: str) -> None:
    """q = R + launch, whatever the negotiation took; what is left after R is the launch (work) and the collective."""
    trace, _ = single("host", plane, data_plane=data_plane)
    parts, responses, steps = breakdown(trace), trace.responses, trace.steps
    np.testing.assert_array_equal(responses["launch_ns"], steps["ready_last_ns"] + HOST.launch_ns)
    assert set(parts["control_work"].tolist()) == {HOST.launch_ns}
    np.testing.assert_array_equal(parts["exposed_collective"], responses["collective_ns"])
    for name in ("cycle_wait", "control_exchange", "fusion_copy"):
        assert not parts[name].any()


def test_a_host_that_waits_stretches_the_cycle() -> None:
    """Two gradients, 1 ms and 40 ms into backward, both submitted at its start. The ranks launch the first at once and
    sit in that cycle until 40 ms: no cycle begins in between. A stream would let them turn on."""
    job = workload(tensors=tensors([1_000_000, 39_000_000]), forward_ns=1_500_000)
    plane = replace(PLANE, name="coordinator", fusion_threshold_bytes=0)
    described = early(scenario(3, 1, workload=job, noise=Noise(), control_plane=plane), 0, "host")
    host = assert_engines_agree(described)
    stream = assert_engines_agree(early(described, 0, "stream"))
    local_ns = HOST.local_response_ns + HOST.device_entry_ps * 3 // 1000
    begin_ns, second_ns = 1_500_000 + 1_000_000, 1_500_000 + 40_000_000
    assert host.responses["launch_ns"][:2].tolist() == [begin_ns + HOST.launch_ns, second_ns + HOST.launch_ns]
    assert stream.responses["begin_ns"][:2].tolist() == [begin_ns, second_ns]
    cold = [trace.cycles["enter_last_ns"][trace.cycles["step"] == 0] for trace in (host, stream)]
    turns = [trace.cycles["repeat"][trace.cycles["step"] == 0].sum() for trace in (host, stream)]
    assert turns[0] == turns[1] == 3  # until all are scheduled; what follows is of step 1
    assert [int(each.max()) for each in cold] == [2_000_000, 2_000_000]  # submitted at 1.5 ms
    following = [int(trace.cycles["enter_last_ns"][trace.cycles["step"] == 1][0]) for trace in (host, stream)]
    assert following == [second_ns + HOST.launch_ns, 3_000_000]
    assert stream.responses["launch_ns"][1] - stream.responses["launch_ns"][0] == local_ns + HOST.launch_ns


def test_each_rank_waits_for_its_own_data() -> None:
    """A slow rank finishes its cycle last; the others have gone to sleep, and wait for it in the next exchange."""
    noise = Noise(rank=Spread("normal", 300_000))
    job = workload(tensors=tensors([1_000_000, 39_000_000]), forward_ns=1_500_000)
    plane = replace(PLANE, name="coordinator", cycle_time_ns=100_000)
    described = early(scenario(6, 1, workload=job, noise=noise, control_plane=plane), 0, "host")
    problem, trace = Problem(described), assert_engines_agree(described)
    exist = problem.noise.ready_ns(0, 1_500_000, problem.backward_ns, 0, 6)[:, -1]
    row = int(np.flatnonzero(trace.cycles["step"] == 1)[0])
    first, last = (int(trace.cycles[f"enter_{which}_ns"][row]) for which in ("first", "last"))
    assert (first, last) == (exist.min() + HOST.launch_ns, exist.max() + HOST.launch_ns)
    assert trace.cycles["enter_last_rank"][row] == exist.argmax()
    assert last - first > 5_000_000


def test_one_events_existence_is_its_units() -> None:
    """A loose group is waited for as a whole even where the threshold splits it: hooks record one event."""
    job = workload(tensors=tensors([1_000_000, 30_000_000]), forward_ns=1_500_000)
    grouped = replace(PLANE.groups, mode="count", count=1)
    plane = replace(PLANE, name="coordinator", fusion_threshold_bytes=0, groups=grouped)
    described = early(scenario(3, 1, workload=job, noise=Noise(), control_plane=plane), 0, "stream")
    trace = assert_engines_agree(described)
    assert trace.responses["units"][:2].tolist() == [1, 1]
    assert trace.responses["begin_ns"][0] == 1_500_000 + 31_000_000


def test_submission_is_never_after_existence() -> None:
    """Noise acts on both clocks alike; where a list would put a hook behind its gradient, the gradient counts."""
    job = workload(tensors=tensors([5_000_000, 5_000_000]), forward_ns=1_000_000)
    made = (replace(job.tensors[0], submit_ns=0), replace(job.tensors[1], submit_ns=10_000_000))
    noise = Noise(tensor=Spread("exponential", 900_000))
    plane = replace(PLANE, name="coordinator", cycle_time_ns=100_000, wait_for_data="stream")
    cheap = replace(CLUSTER, host=replace(HOST, per_message_ns=0, per_request_ns=0, per_response_ns=0))
    described = scenario(2, 1, seed=3, workload=replace(job, tensors=made), noise=noise, control_plane=plane)
    described = replace(described, cluster=cheap)
    problem = Problem(described)
    hooks = problem.noise.ready_ns(0, 1_000_000, problem.submit_gap_ns, 0, 2)
    exist = problem.noise.ready_ns(0, 1_000_000, problem.backward_ns, 0, 2)
    slowest = int(np.minimum(hooks, exist).max())
    assert hooks.max() > slowest + 1_000_000, "the seed must show it"
    trace = assert_engines_agree(described)
    last_ask = int(trace.cycles["enter_first_ns"][(trace.cycles["requests"] > 0) & (trace.cycles["step"] == 0)].max())
    assert slowest <= last_ask < slowest + 200_000


def test_blocking_launches_wait_for_data_one_after_the_other() -> None:
    """Each response: max(end of the one before + local work, its data) + launch."""
    made = tensors([1_000_000, 9_000_000, 10_000, 10_000], [10, 10, 3_000_000, 10])
    job = workload(tensors=made, forward_ns=1_500_000)
    plane = replace(PLANE, name="coordinator", fusion_threshold_bytes=0, data_plane="blocking")
    described = early(scenario(3, 1, workload=job, noise=Noise(), control_plane=plane), 0, "host")
    trace = assert_engines_agree(described)
    local_ns = HOST.local_response_ns + HOST.device_entry_ps * 3 // 1000
    launch, end = (trace.responses[name][:4].tolist() for name in ("launch_ns", "end_ns"))
    exist = [1_500_000 + after for after in (1_000_000, 10_000_000, 10_010_000, 10_020_000)]
    expected = [exist[0] + HOST.launch_ns]
    expected += [max(end[j - 1] + local_ns, exist[j]) + HOST.launch_ns for j in (1, 2, 3)]
    assert launch == expected
    assert [max(end[j - 1] + local_ns, exist[j]) == exist[j] for j in (1, 2, 3)] == [True, False, False]


def test_earlier_hooks_never_make_a_step_longer_than_one_clock() -> None:
    """Not a law (fusion changes), but so for a coordinator that has to be asked once per cycle."""
    described = scenario(6, 4, noise=RAGGED, control_plane=replace(PLANE, name="coordinator"))
    whole = step_times(vector.run(Problem(described)))
    for wait in ("host", "stream"):
        assert (step_times(vector.run(Problem(early(described, 25, wait)))) <= whole).all()


def test_what_no_engine_can_do_is_refused_in_code_too() -> None:
    with pytest.raises(Refused, match=r"control_plane\.wait_for_data: none, but t0 is submitted 500000 ns before"):
        Problem(early(scenario(3), 0, "none"))
    for run in (event.run, vector.run):
        with pytest.raises(Refused, match="has no stream that could wait"):
            run(Problem(early(scenario(3), 50, "stream", data_plane="blocking")))


@pytest.mark.parametrize(
    ("plane", "ranks", "asked", "who"),
    [
        ("cached", 3, "host", "host"),
        ("cached", 3, "stream", "stream"),
        ("cached", 3, "none", "none"),
        ("cached", 1, "host", "none"),
        ("ideal", 3, "host", "none"),
        ("ddp", 3, "host", "stream"),
        ("ddp", 3, "none", "none"),
    ],
)
def test_who_waits(plane: str, ranks: int, asked: str, who: str) -> None:
    control = replace(PLANE, name=plane, wait_for_data=asked)
    assert Problem(scenario(ranks, control_plane=control)).wait == who


@pytest.mark.parametrize("data_plane", ["async", "blocking"])
def test_one_rank_and_ideal_know_existence_only(data_plane: str) -> None:
    for plane, ranks in (("cached", 1), ("ideal", 5)):
        control = replace(PLANE, name=plane, data_plane=data_plane)
        one_clock = scenario(ranks, noise=RAGGED, control_plane=control)
        trace = assert_engines_agree(early(one_clock, 10, "host"))
        assert difference(trace, vector.run(Problem(one_clock))) is None
