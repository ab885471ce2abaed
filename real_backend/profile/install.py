"""Installs this process's hooks, before the script begins.

Every Python process of the command comes here, so nothing heavy is loaded until the script loads torch.distributed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import ModuleType

from real_backend import profile
from real_backend.profile.imports import Watcher
from real_backend.profile.launch import HOOKED
from real_backend.profile.lives import Lives
from real_backend.profile.session import Session

FSDP = "torch.distributed.fsdp"
FSDP2 = f"{FSDP}._fully_shard"
WATCHED = (
    "torch.optim.optimizer", "torch.distributed.distributed_c10d",
    "torch.nn.parallel.distributed", f"{FSDP2}._fsdp_collectives",
    f"{FSDP2}._fsdp_param", f"{FSDP2}._fsdp_param_group", f"{FSDP2}._fsdp_state", f"{FSDP}._flat_param",
    f"{FSDP}._runtime_utils",
)  # fmt: skip


def install() -> None:
    """Install the hooks that the environment asks for (:data:`real_backend.profile.VARIABLES`).

    Raises KeyError, ValueError or OSError.
    """
    folder = Path(os.environ[profile.FOLDER])
    session = Session(folder, int(os.environ[profile.STEPS]))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HOOKED).touch()
    lives = Lives(folder)
    lives.hooked()
    session.at_start(lambda: _marks(session))
    Watcher({name: partial(session.quietly, _loaded, session, lives, name) for name in WATCHED}).install()
    profile.begin(session)


def _marks(session: Session) -> Callable[[], None]:
    from real_backend.profile.marks import install as install_marks

    return install_marks(session)


def _loaded(session: Session, lives: Lives, name: str, module: ModuleType) -> None:
    _hooks(session, lives)[name](module)


@cache
def _hooks(session: Session, lives: Lives) -> dict[str, Callable[[ModuleType], None]]:
    from real_backend.profile.ddp import Ddp
    from real_backend.profile.fsdp import Fsdp
    from real_backend.profile.fsdp1 import Fsdp1
    from real_backend.profile.process import Process

    process = Process(session, lives)
    if os.environ.get(profile.STOPS):
        session.when_over = process.leave_when_all_have
    fsdp, fsdp1 = Fsdp(process), Fsdp1(process)
    wraps = (
        process.optimizers, process.loaded,
        Ddp(process).loaded, fsdp.collectives, fsdp.param, fsdp.group, fsdp.state, fsdp1.flat,
        fsdp1.runtime,
    )  # fmt: skip
    return dict(zip(WATCHED, wraps, strict=True))
