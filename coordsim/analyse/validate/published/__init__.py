"""Published numbers beside what the model says of them (docs/published.md 1)."""

from __future__ import annotations

from coordsim.analyse.validate.published.judge import published_rows
from coordsim.analyse.validate.published.rows import Row

__all__ = ["Row", "published_rows"]
