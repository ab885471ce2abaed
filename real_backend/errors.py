"""Errors that end operations or the job; each is raised to every caller that waits."""

from __future__ import annotations

from coordsim.protocol.queue import SHUT_DOWN, AfterJoin, DuplicateName, NotRunning
from coordsim.protocol.readiness import ProtocolError
from coordsim.protocol.startup import SettingsDiffer


class CollectiveFailed(RuntimeError):
    """One tensor's operation failed on every rank, for the reason in the text; training may go on."""


class ShutDown(RuntimeError):
    """The job ended while this operation was pending."""

    def __init__(self, text: str = SHUT_DOWN) -> None:
        super().__init__(text)


class PeerLost(RuntimeError):
    """A rank died, or its background thread gave no sign of life; the job is over on every rank."""

    def __init__(self, rank: int, reason: str) -> None:
        super().__init__(f"rank {rank} was lost: {reason}")
        self.rank = rank
        self.reason = reason


class Unauthenticated(RuntimeError):
    """A connection came from a process that does not know the job's secret."""


class CannotStart(RuntimeError):
    """The ranks did not find each other, or a setting cannot be used here; the text says what to change."""


__all__ = [
    "AfterJoin", "CannotStart", "CollectiveFailed", "DuplicateName", "NotRunning", "PeerLost", "ProtocolError",
    "SettingsDiffer", "ShutDown", "Unauthenticated",
]  # fmt: skip
