"""A scenario as plain data with explicit units, and the hash that names it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from typing import Any

from coordsim.scenario.model import Scenario, Tensor, Workload

SCHEMA = "coordsim.scenario/1"
TENSOR_COLUMNS = tuple(field.name for field in fields(Tensor))


def resolved(scenario: Scenario) -> dict[str, Any]:
    """Every number of ``scenario`` as JSON-able data.

    Keys are the dataclasses' field names, whose suffixes are the units (``_ns``, ``_bytes``, ``_Bps``...).
    A cluster's ranges and collectives are left out: no simulation depends on them.
    The tensors are ``{"columns": [...], "rows": [[...], ...]}`` in ready order.
    """
    data = asdict(scenario)
    data["workload"]["tensors"] = _tensor_rows(scenario.workload)
    del data["cluster"]["ranges"], data["cluster"]["collectives"]
    plain: dict[str, Any] = json.loads(json.dumps({"schema": SCHEMA} | data))
    return plain


def scenario_hash(scenario: Scenario) -> str:
    """SHA-256 (hex) of the canonical JSON of :func:`resolved`, without the ``sources``.

    Equal hashes mean the same simulation.
    """
    data = resolved(scenario)
    for section in ("workload", "cluster"):
        del data[section]["sources"]
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _tensor_rows(workload: Workload) -> dict[str, Any]:
    rows = [[getattr(tensor, column) for column in TENSOR_COLUMNS] for tensor in workload.tensors]
    return {"columns": list(TENSOR_COLUMNS), "rows": rows}
