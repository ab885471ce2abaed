"""One smoke test with real processes: a known cause goes in, its rank and its part come out. The logic is tested on
an injected clock (``tests/analyse/test_causes.py``); the whole matrix: ``tests/bench/profile_causes.py``."""

from __future__ import annotations

import pytest

from tests.bench.profile_causes import profiled


def test_a_forward_on_all_and_late_samples_on_one_are_both_told() -> None:
    found = profiled({"FWD_ALL": "40", "DATA_LATE": "90", "N": "12"}, 2)
    assert found.late == [(1, "input_stall")]
    own = found.own[found.facts["shown_rank"]]
    assert found.facts["shown_rank"] == 0
    assert 1e3 * found.facts["breakdown_s"]["forward"] == pytest.approx(own["fwd"], rel=0.25)
    (late,) = found.facts["stragglers"]["late"]
    assert late["late_s"] == pytest.approx(0.09, rel=0.3)
    assert found.facts["recommendation"]["about"] == "late"
