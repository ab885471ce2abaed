"""A run, simulated or real, as a file for another tool: what ``coordsim export`` does."""

from __future__ import annotations

from coordsim.report.export.run import FORMATS, Exported, export_run

__all__ = ["FORMATS", "Exported", "export_run"]
