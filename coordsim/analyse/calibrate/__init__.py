"""From timings to a cluster: LogGP, collectives, host costs and noise, each with an interval and a fit error."""

from __future__ import annotations

from coordsim.analyse.calibrate.calibration import calibrate
from coordsim.analyse.calibrate.result import Calibration, Candidate, Choice, Estimate

__all__ = ["Calibration", "Candidate", "Choice", "Estimate", "calibrate"]
