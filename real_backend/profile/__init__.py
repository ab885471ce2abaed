"""Recording of unchanged scripts: DDP and FSDP over any backend, ``coord``, ``DistributedOptimizer``.

``coordsim profile`` starts a command with :data:`FOLDER` set and ``site/`` on ``PYTHONPATH``. The ``sitecustomize`` in
there calls :func:`real_backend.profile.install.install` before the script begins. A fault in this package is reported
once and ends the record; training goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from real_backend.profile.session import Session, Sink

FOLDER = "COORDSIM_RECORD"
"""Environment variable: the folder for the record streams, including those of the ``coord`` engine."""
STEPS = "COORDSIM_RECORD_STEPS"
"""Environment variable: the number of steps to record."""
WANTED = "COORDSIM_PROFILE"
"""Environment variable: set if this process is to install hooks."""
STOPS = "COORDSIM_PROFILE_STOPS"
"""Environment variable: set if processes end once all ranks have recorded their steps."""
VARIABLES = (FOLDER, STEPS, WANTED, STOPS)
CONTROL_PLANE = "ddp"
"""The control plane written to a record of a framework that does not negotiate."""

_session: Session | None = None


def begin(session: Session) -> None:
    """Register the session of this process, which now has hooks."""
    global _session
    _session = session


def attach(sink: Sink) -> None:
    """Direct marks and readiness to the record of an engine. In a process without hooks this does nothing."""
    if _session is not None:
        _session.attach(sink)
