"""Where a recorded run comes from: versions, when, the commit of the folder, a digest of each stream."""

from __future__ import annotations

import platform
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any

from coordsim import __version__
from coordsim.cli.doctor import installed
from coordsim.record.run_facts import Provenance


def provenance(streams: Path) -> Provenance:
    """Of ranks' records in the folder ``streams``."""
    return Provenance(
        version=__version__,
        versions={"python": platform.python_version(), "torch": installed("torch"), "numpy": installed("numpy")},
        system=platform.platform(terse=True), git=_commit(),
        records_sha256={path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(streams.glob("*.rank"))},
    )  # fmt: skip


def _commit() -> dict[str, Any] | None:
    """Of the current folder: its commit, and whether tracked files differ from it."""
    try:
        head = _git("rev-parse", "HEAD")
        return {"commit": head, "changed": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
