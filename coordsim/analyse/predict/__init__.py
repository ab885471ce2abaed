"""A measured workload on another machine, at another scale: three intervals kept apart, and what they rest on."""

from coordsim.analyse.predict.intervals import Beside, Prediction, predict
from coordsim.analyse.predict.measured import MeasuredWorkload, measured_workload

__all__ = ["Beside", "MeasuredWorkload", "Prediction", "measured_workload", "predict"]
