"""Straggler detection: which rank or host is late, from when each rank was ready for its collectives.

A collective makes all ranks look equally slow; the time at which each rank was ready before it does not.
:func:`stragglers` names a rank or a host that is last more often than chance allows. It states the lateness, since
which step, from which tensor on, and what it costs. If no rank can be named, it states how small a delay would have
been detected. The null hypothesis is that all ranks behave identically, so that each of N ranks is last in a step with
probability 1/N (:mod:`coordsim.analyse.stragglers.judge`).
"""

from __future__ import annotations

from coordsim.analyse.stragglers.diagnosis import stragglers

__all__ = ["stragglers"]
