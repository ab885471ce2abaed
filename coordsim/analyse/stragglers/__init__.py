"""Who was late? Collectives make all ranks look equally slow; when each rank was ready, before them, does not.

:func:`stragglers` names a rank or a host that comes last more often than chance allows, by how much, since when, from
which tensor on, and what it costs; or nobody, and then how large a delay it would have seen. What counts as chance:
that all who are compared are alike, so that each is last in one of N steps (:mod:`coordsim.analyse.stragglers.judge`).
"""

from __future__ import annotations

from coordsim.analyse.stragglers.diagnosis import SCHEMA, stragglers

__all__ = ["SCHEMA", "stragglers"]
