"""A scenario back from the plain data that :func:`coordsim.scenario.resolved.resolved` makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from coordsim.errors import InputError
from coordsim.scenario.model import Scenario
from coordsim.scenario.resolved import SCHEMA, scenario_hash


def restored(data: Mapping[str, Any], where: str, sha256: str | None = None) -> Scenario:
    """The scenario in ``data``, which ``where`` names in errors; ``sha256`` is what its hash has to be.

    Raises InputError for data that is no resolved scenario, or another one than the hash says.
    """
    if data.get("schema") != SCHEMA:
        raise InputError.one(where, "scenario.schema", data.get("schema"), "no resolved scenario", (SCHEMA,))
    try:
        table = data["workload"]["tensors"]
        rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
        plain = {**data, "workload": {**data["workload"], "tensors": rows}}
        del plain["schema"]
        scenario = TypeAdapter(Scenario).validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError.one(where, f"scenario.{key}", first["input"], first["msg"]) from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError.one(where, "scenario", None, f"no resolved scenario: {error}") from error
    if sha256 is not None and scenario_hash(scenario) != sha256:
        raise InputError.one(where, "scenario", None, "its hash differs from scenario_sha256")
    return scenario
