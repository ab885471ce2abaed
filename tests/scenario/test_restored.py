"""A resolved scenario comes back as it was, or not at all."""

from __future__ import annotations

import copy
import json

import pytest

from coordsim.errors import InputError
from coordsim.scenario.loading import load_scenario
from coordsim.scenario.resolved import resolved, scenario_hash
from coordsim.scenario.restored import restored
from tests.scenarios import random_scenario


@pytest.mark.parametrize("seed", range(40))
def test_any_scenario_comes_back(seed: int) -> None:
    described = random_scenario(seed)
    data = json.loads(json.dumps(resolved(described)))
    again = restored(data, "m", scenario_hash(described))
    assert resolved(again) == resolved(described)


@pytest.mark.parametrize("workload", ["resnet50", "stemdl", "bert_large"])
def test_catalog_scenarios_come_back(workload: str) -> None:
    described = load_scenario(workload=workload, cluster="summit", ranks=12)
    assert resolved(restored(resolved(described), "m", scenario_hash(described))) == resolved(described)


def test_what_is_none_is_said_to_be_none() -> None:
    described = random_scenario(1)
    good = resolved(described)
    with pytest.raises(InputError, match=r"m: scenario\.schema"):
        restored({}, "m")
    with pytest.raises(InputError, match="its hash differs"):
        restored(good, "m", "0" * 64)
    for path, value in ((("ranks",), "many"), (("cluster",), None), (("workload", "tensors"), [])):
        bad = copy.deepcopy(good)
        target = bad
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value
        with pytest.raises(InputError, match=r"m: scenario"):
            restored(bad, "m")
