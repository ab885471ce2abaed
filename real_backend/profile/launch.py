"""What ``coordsim profile`` needs of this room to start a command: its environment. Loads nothing heavy."""

from __future__ import annotations

import os
from pathlib import Path

from real_backend.profile import FOLDER, STEPS, STOPS, WANTED

SITE = Path(__file__).parent / "site"
HOOKED = "hooked"
"""Left in the folder by a Python process that has hooks."""
INITIALIZED = "initialized"
"""In the folder: the rank of each process that came to ``init_process_group``, a line each."""
RECORDED = "recorded"
"""In the folder: the rank of each process that has recorded all steps that are wanted, a line each."""
SINGLE = "single"
"""In the folder: the process id of the one that records, of several without ranks."""
_ALL_RANKS = 1 << 30


def environment(folder: Path, steps: int, then_stop: bool = False) -> dict[str, str]:
    """The surroundings of a command whose processes record ``steps`` steps after the first into ``folder``, and then
    end if ``then_stop``."""
    found = dict(os.environ)
    found["PYTHONPATH"] = os.pathsep.join([str(SITE), *filter(None, [found.get("PYTHONPATH")])])
    found |= {
        WANTED: "1", FOLDER: str(folder.absolute()), STEPS: str(steps + 1),
        "COORDSIM_RECORD_FIRST_STEPS": str(steps + 1), "COORDSIM_RECORD_WORST_STEPS": "0",
        "COORDSIM_RECORD_SAMPLED_RANKS": str(_ALL_RANKS),
    }  # fmt: skip
    found.pop(STOPS, None)
    if then_stop:
        found[STOPS] = "1"
    return found


def hooked(folder: Path) -> bool:
    """Whether some Python process of the command had hooks."""
    return (folder / HOOKED).exists()


def jobs(folder: Path) -> int:
    """How many jobs were started, one after the other: how many processes were a rank 0."""
    path = folder / INITIALIZED
    return path.read_text().split().count("0") if path.exists() else 0
