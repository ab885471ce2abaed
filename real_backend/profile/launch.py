"""What ``coordsim profile`` needs of this room to start a command: its environment. Loads nothing heavy."""

from __future__ import annotations

import os
from pathlib import Path

from real_backend.profile import FOLDER, STEPS, WANTED

SITE = Path(__file__).parent / "site"
INITIALIZED = "initialized"
"""Left in the folder by a process that came to ``init_process_group``."""
_ALL_RANKS = 1 << 30


def environment(folder: Path, steps: int) -> dict[str, str]:
    """The surroundings of a command whose processes record ``steps`` steps after the first into ``folder``."""
    found = dict(os.environ)
    found["PYTHONPATH"] = os.pathsep.join([str(SITE), *filter(None, [found.get("PYTHONPATH")])])
    found |= {
        WANTED: "1", FOLDER: str(folder.absolute()), STEPS: str(steps + 1),
        "COORDSIM_RECORD_FIRST_STEPS": str(steps + 1), "COORDSIM_RECORD_WORST_STEPS": "0",
        "COORDSIM_RECORD_SAMPLED_RANKS": str(_ALL_RANKS),
    }  # fmt: skip
    return found


def initialized(folder: Path) -> bool:
    """Whether some process came to ``init_process_group``."""
    return (folder / INITIALIZED).exists()
