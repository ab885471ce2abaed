"""The control messages of a recorded run: the size of each, and what every rank did between them."""

from __future__ import annotations

from coordsim.analyse.messages.job import Sweep, request_of
from coordsim.analyse.messages.program import Program
from coordsim.analyse.messages.replayed import Replayed, Turn, replayed

__all__ = ["Program", "Replayed", "Sweep", "Turn", "replayed", "request_of"]
