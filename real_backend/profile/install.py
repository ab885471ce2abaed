"""Puts this process's hooks in place; called before the script begins, with nothing of torch loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from real_backend import profile
from real_backend.profile import marks
from real_backend.profile.ddp import Ddp
from real_backend.profile.fsdp import Fsdp
from real_backend.profile.imports import Watcher
from real_backend.profile.process import Process
from real_backend.profile.session import Session


def install() -> None:
    """Hooks as the environment wants them (:data:`real_backend.profile.VARIABLES`). Raises KeyError, ValueError."""
    session = Session(Path(os.environ[profile.FOLDER]), int(os.environ[profile.STEPS]))
    process = Process(session)
    session.at_start(lambda: marks.install(session))
    watched: dict[str, Callable[[ModuleType], None]] = {
        "torch.distributed.distributed_c10d": process.loaded,
        "torch.nn.parallel.distributed": Ddp(process).loaded,
        **Fsdp(process).watched,
    }
    Watcher({name: _quiet(session, loaded) for name, loaded in watched.items()}).install()
    profile.begin(session)


def _quiet(session: Session, loaded: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    return lambda module: session.quietly(loaded, module)
