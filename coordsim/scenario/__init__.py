"""What is described: workload, cluster, control plane and noise, from files and names to resolved numbers.

Importing this package is light; pydantic is imported when :func:`load_scenario` runs.
"""

from __future__ import annotations

from coordsim.scenario.keys import DTYPE_BYTES
from coordsim.scenario.loading import load_scenario
from coordsim.scenario.model import (
    CONTROL_PLANES,
    Cluster,
    ControlNetwork,
    ControlPlane,
    ControlPlaneName,
    DataNetwork,
    Distribution,
    Groups,
    HostCosts,
    Machine,
    Noise,
    Scenario,
    Spread,
    Tensor,
    Workload,
)

__all__ = [
    "CONTROL_PLANES",
    "DTYPE_BYTES",
    "Cluster",
    "ControlNetwork",
    "ControlPlane",
    "ControlPlaneName",
    "DataNetwork",
    "Distribution",
    "Groups",
    "HostCosts",
    "Machine",
    "Noise",
    "Scenario",
    "Spread",
    "Tensor",
    "Workload",
    "load_scenario",
]
