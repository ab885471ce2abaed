"""How far a cluster's numbers may be off: stated beside them, checked, dropped with the number they belong to."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordsim.scenario import load_scenario
from coordsim.scenario.resolved import scenario_hash

STATED = """
[cluster.ranges."host.per_request"]
name = "request_cost"
label = "request cost"
low = "0.4us"
high = "2us"
costly = "high"
source = "MEASURED"
"""


def keys(scenario) -> set[str]:
    return {each.key for each in scenario.cluster.ranges}


def test_summit_states_its_ranges_and_a_renamed_copy_keeps_them(tmp_path: Path):
    scenario = load_scenario(workload="resnet50", cluster="summit")
    assert "cluster.host.per_request" in keys(scenario)
    assert "noise.rank.sigma" in keys(scenario)
    (tmp_path / "mine.toml").write_text('cluster = "summit"\nworkload = "resnet50"\n[cluster]\n'.replace(
        'cluster = "summit"\n', "").replace("[cluster]", '[cluster]\nbase = "summit"\nname = "mine"'))  # fmt: skip
    mine = load_scenario(tmp_path / "mine.toml")
    assert mine.cluster.name == "mine"
    assert keys(mine) == keys(scenario)


def test_a_number_that_is_set_later_has_no_range():
    scenario = load_scenario(workload="resnet50", cluster="summit", overrides=["cluster.host.per_request=1us"])
    assert "cluster.host.per_request" not in keys(scenario)
    assert "cluster.host.per_message" in keys(scenario)


def test_a_file_states_a_number_with_its_range(small: Path):
    small.write_text(small.read_text().replace('cluster = "summit"', "") +
                     '\n[cluster]\nbase = "summit"\n[cluster.host]\nper_request = "1us"\n' + STATED)  # fmt: skip
    (stated,) = (each for each in load_scenario(small).cluster.ranges if each.name == "request_cost")
    assert (stated.low, stated.high, stated.source) == ("0.4us", "2us", "MEASURED")


def test_no_simulation_depends_on_ranges(small: Path):
    before = load_scenario(small)
    small.write_text(small.read_text().replace('cluster = "summit"', "") + '\n[cluster]\nbase = "summit"\n' + STATED)
    assert scenario_hash(load_scenario(small)) == scenario_hash(before)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (('"host.per_request"', '"host.per_requests"'), "'host.per_requests' is no number of a cluster"),
        (('"host.per_request"', '"noise.rnk.sigma"'), "is no number of noise"),
        (('"0.4us"', '"0.4 parsecs"'), "'0.4 parsecs' cannot be host.per_request"),
        (('"high"\nsource', '"up"\nsource'), "'up' is not known"),
        (('name = "request_cost"', 'name = "list_cost"'), "name 'list_cost' is that of"),
    ],
)
def test_mistakes_in_ranges_say_what_is_allowed(small: Path, refused, changed, message):
    small.write_text(small.read_text().replace('cluster = "summit"', "") +
                     '\n[cluster]\nbase = "summit"\n' + STATED.replace(*changed))  # fmt: skip
    assert any(message in str(problem) for problem in refused(small))
