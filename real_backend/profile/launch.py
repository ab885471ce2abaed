"""The environment in which ``coordsim profile`` starts a command. This module loads nothing heavy."""

from __future__ import annotations

import os
from pathlib import Path

from real_backend.profile import FOLDER, STEPS, STOPS, WANTED

SITE = Path(__file__).parent / "site"
HOOKED = "hooked"
"""Name of a file that a Python process with hooks leaves in the folder."""
INITIALIZED = "initialized"
"""Name of a file in the folder: one line with its rank for each process that called ``init_process_group``."""
RECORDED = "recorded"
"""Name of a file in the folder: one line with its rank for each process that has recorded all its steps."""
SINGLE = "single"
"""Name of a file in the folder: the id of the process that records, of several processes without ranks."""
_ALL_RANKS = 1 << 30


def environment(folder: Path, steps: int, then_stop: bool = False) -> dict[str, str]:
    """Return the environment of a command whose processes record into ``folder``.

    They record ``steps`` steps after the first one and then, with ``then_stop``, end.
    """
    variables = dict(os.environ)
    variables["PYTHONPATH"] = os.pathsep.join([str(SITE), *filter(None, [variables.get("PYTHONPATH")])])
    variables |= {
        WANTED: "1", FOLDER: str(folder.absolute()), STEPS: str(steps + 1),
        "COORDSIM_RECORD_FIRST_STEPS": str(steps + 1), "COORDSIM_RECORD_WORST_STEPS": "0",
        "COORDSIM_RECORD_SAMPLED_RANKS": str(_ALL_RANKS),
    }  # fmt: skip
    variables.pop(STOPS, None)
    if then_stop:
        variables[STOPS] = "1"
    return variables


def hooked(folder: Path) -> bool:
    """Return whether a Python process of the command had hooks."""
    return (folder / HOOKED).exists()


def jobs(folder: Path) -> int:
    """Return how many jobs were started one after the other, counted as processes with rank 0."""
    path = folder / INITIALIZED
    return path.read_text().split().count("0") if path.exists() else 0
