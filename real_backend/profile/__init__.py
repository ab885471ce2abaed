"""Records scripts that stay as they are: DDP and FSDP2 over any backend, ``coord``, ``DistributedOptimizer``.

``coordsim profile`` starts a command with :data:`FOLDER` set and ``site/`` on ``PYTHONPATH``; there a ``sitecustomize``
calls :func:`real_backend.profile.install.install` before the script begins. Whatever goes wrong in here is told once,
ends the record, and leaves training alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from real_backend.profile.session import Session, Sink

FOLDER = "COORDSIM_RECORD"
"""Variable: where streams go; the engine's records, too."""
STEPS = "COORDSIM_RECORD_STEPS"
"""Variable: steps that are recorded."""
WANTED = "COORDSIM_PROFILE"
"""Variable: hooks are wanted in this process."""
STOPS = "COORDSIM_PROFILE_STOPS"
"""Variable: processes end once all ranks have recorded their steps."""
VARIABLES = (FOLDER, STEPS, WANTED, STOPS)
CONTROL_PLANE = "ddp"
"""Of a record in which nobody negotiates."""

_session: Session | None = None


def begin(session: Session) -> None:
    """From now on this process has hooks."""
    global _session
    _session = session


def attach(sink: Sink) -> None:
    """An engine records: marks and readiness go to it. Nothing happens in a process without hooks."""
    if _session is not None:
        _session.attach(sink)
