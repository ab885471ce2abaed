"""coordsim: simulate, profile and explain the negotiation in data-parallel training.

>>> from coordsim import Scenario, simulate
>>> result = simulate(Scenario.load("job.toml"))  # doctest: +SKIP
>>> result.breakdown()  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import_module("coordsim.simulate")  # the room first: below, the name becomes the function

if TYPE_CHECKING:
    from coordsim.errors import InputError, Refused
    from coordsim.record.run import Run, open_run
    from coordsim.record.trace import Trace
    from coordsim.scenario import Scenario
    from coordsim.scenario.loading import load_scenario
    from coordsim.simulate.engine import Simulation

__version__ = "0.1.0"
__all__ = [
    "InputError", "Refused", "Run", "Scenario", "Simulation", "Trace", "__version__", "load_scenario", "open_run",
    "simulate",
]  # fmt: skip

_HOMES = {
    "InputError": "coordsim.errors",
    "Refused": "coordsim.errors",
    "Run": "coordsim.record.run",
    "Scenario": "coordsim.scenario",
    "Simulation": "coordsim.simulate.engine",
    "Trace": "coordsim.record.trace",
    "load_scenario": "coordsim.scenario.loading",
    "open_run": "coordsim.record.run",
}


def __getattr__(name: str) -> Any:
    """Load public names on first use, so that ``coordsim --help`` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def simulate(
    scenario: Scenario,
    engine: Literal["auto", "event", "vector"] = "auto",
    *,
    debug: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Simulation:
    """Simulate ``scenario``; see :func:`coordsim.simulate.engine.simulate`."""
    from coordsim.simulate import engine as engines

    return engines.simulate(scenario, engine, debug=debug, progress=progress)
