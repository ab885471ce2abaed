"""A finding of a comparison: one state that is not as it should be, with its evidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One state that is not as it should be. ``kind`` is one of:

    /- "operation", "size", "type": calls of one number contradict each other;

    - "missing": a rank has not called what others wait in;
    - "not-started": all called, some devices have not begun;
    - "no-dump", "members-unknown", "unclear": a call is open, and the dumps do not show which rank is missing;
    - "send", "receive": no peer has the other half;
    - "cycle": ranks wait for each other in several groups.
    """

    kind: str
    group: str
    number: int | None
    operation: str
    text: str
    waited_for: tuple[int, ...] = ()
    waiting: tuple[int, ...] = ()
    calls: dict[str, str] = field(default_factory=dict)
    """Ranks in words -> what they called, if that differs."""

    def as_json(self) -> dict[str, Any]:
        """Return plain data, for the object of ``coordsim import --json``. A rank that is not known is null."""
        return {
            "kind": self.kind, "group": self.group, "number": self.number, "operation": self.operation,
            "waited_for": [rank if rank >= 0 else None for rank in self.waited_for],
            "waiting": [rank if rank >= 0 else None for rank in self.waiting], "calls": self.calls, "text": self.text,
        }  # fmt: skip
