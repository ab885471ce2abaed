"""Which costs a backend's collectives have: of a cluster file that was calibrated for it, else those kept here."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from coordsim.analyse.predict.collectives import CollectiveCosts, Costs, known
from coordsim.analyse.predict.here import ASSUMED, MEASURED, Doubt
from coordsim.errors import InputError

_DATA = "collective_costs.json"


class BackendCosts(NamedTuple):
    """Of one backend, and how sure they are."""

    costs: Costs
    doubt: Doubt
    source: str


def backend_costs(backend: str, calibrated: CollectiveCosts | None) -> BackendCosts:
    """``calibrated``: of a cluster file that describes this machine. Raises InputError for a backend without a law."""
    if not known(backend):
        message = (
            f"the run reduced over {backend}: how its collectives grow with ranks on shared cores is known of gloo and "
            "coord only. Say another machine: --cluster NAME"
        )
        raise InputError.one("predict", "backend", backend, message)
    if calibrated is not None and calibrated.backend == backend:
        costs = calibrated.costs
        ranks = ", ".join(map(str, calibrated.ranks))
        return BackendCosts(costs, MEASURED, f"{backend} timed alone at {ranks} ranks on {calibrated.date}")
    kept = _kept()[backend]
    costs = Costs(*(float(kept[name]) for name in Costs._fields))
    return BackendCosts(
        costs, ASSUMED, f"{backend} was not timed on this machine: its proportions are those of another "
        f"({kept['source']}, {kept['date']})",
    )  # fmt: skip


@cache
def _kept() -> dict[str, dict[str, Any]]:
    text = (files("coordsim.analyse") / "data" / _DATA).read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = json.loads(text)["backends"]
    return found
