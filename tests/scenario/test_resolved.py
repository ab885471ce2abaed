"""The resolved scenario is JSON with units in its keys; its hash names the simulation."""

from __future__ import annotations

import json
import re

from coordsim.scenario import load_scenario
from coordsim.scenario.resolved import resolved, scenario_hash


def test_everything_is_there_as_json(small):
    data = resolved(load_scenario(small, groups=[["fc.bias", "fc.weight"]]))
    assert json.loads(json.dumps(data)) == data
    assert data["schema"] == "coordsim.scenario/1"
    assert data["cluster"]["control"]["latency_ns"] == 1_500
    assert data["control_plane"]["groups"]["members"] == [["fc.bias", "fc.weight"]]
    tensors = data["workload"]["tensors"]
    assert tensors["columns"] == ["name", "shape", "dtype", "layer", "registration", "submit_ns", "ready_ns"]
    assert tensors["rows"][3] == ["conv.weight", [64, 3, 7, 7], "float32", "conv", 0, 5_000_000, 5_000_000]


def test_the_hash_is_of_what_is_simulated(small):
    name = scenario_hash(load_scenario(small))
    assert re.fullmatch("[0-9a-f]{64}", name)
    assert scenario_hash(load_scenario(small)) == name
    assert (
        scenario_hash(load_scenario(small, overrides=["cluster.host.launch=10000ns"])) == name
    )  # same number
    assert scenario_hash(load_scenario(small, seed=8)) != name
    assert scenario_hash(load_scenario(small, overrides=["cluster.host.launch=10001ns"])) != name
    assert scenario_hash(load_scenario(small, groups="layer")) != name
