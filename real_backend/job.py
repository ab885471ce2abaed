"""The job that this process belongs to: init, rank and size, shutdown; it has one default engine."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from real_backend.engine.assembly import assemble
from real_backend.engine.engine import Engine
from real_backend.engine.settings import EngineSettings, settings_from
from real_backend.errors import CannotStart, NotRunning
from real_backend.leaving import at_exit

_engine: Engine | None = None
_store: dist.Store | None = None
_left_at_exit = False


def init(
    settings: EngineSettings | None = None, *, store: dist.Store | None = None, rank: int | None = None,
    ranks: int | None = None, config: Path | None = None, **changes: Any,
) -> Engine:  # fmt: skip
    """Start this rank's engine and make it the default one.

    Rank, size and store come from the environment that torchrun sets, unless given. Settings are those given, or
    :func:`real_backend.engine.settings.settings_from` the environment and ``config``, with ``changes`` over them. A
    second init needs a shutdown before. Raises CannotStart, InputError, SettingsDiffer or PeerLost.
    """
    global _engine
    if _engine is not None and _engine.running:
        raise CannotStart("initialized already; shut down first")
    rank = _fact("RANK", 0) if rank is None else rank
    ranks = _fact("WORLD_SIZE", 1) if ranks is None else ranks
    chosen = settings or settings_from(file=config, **{"ranks_per_node": _fact("LOCAL_WORLD_SIZE", 1), **changes})
    engine = assemble(
        chosen, store or environment_store(rank, ranks), rank, ranks, job=os.environ.get("COORDSIM_JOB", "job"),
    )  # fmt: skip
    engine.start()
    _engine = engine
    _leave_at_exit()
    return engine


def shutdown() -> None:
    """Stop this job on all ranks; pending operations fail with ShutDown. Does nothing if there is no job."""
    global _engine
    engine, _engine = _engine, None
    if engine is not None:
        engine.shut_down()


def default_engine() -> Engine:
    """Return the default engine. Raises NotRunning before :func:`init`."""
    if _engine is None:
        raise NotRunning("initialize first: real_backend.init()")
    return _engine


def start_timeline(path: Path | str, mark_cycles: bool = False) -> None:
    """Write rank 0's timeline to ``path`` from the next cycle on; on other ranks this does nothing.

    If the file is being written already, nothing happens. Raises NotRunning, and OSError if it cannot be written.
    """
    timeline = default_engine().timeline
    if timeline is not None:
        timeline.start(Path(path), mark_cycles)


def stop_timeline() -> None:
    """Write no timeline from the next cycle on. Raises NotRunning."""
    timeline = default_engine().timeline
    if timeline is not None:
        timeline.stop()


def is_initialized() -> bool:
    return _engine is not None and _engine.running


def rank() -> int:
    """Return this process's rank. Raises NotRunning."""
    return default_engine().rank


def size() -> int:
    """Return the number of ranks in the job. Raises NotRunning."""
    return default_engine().ranks


def local_rank() -> int:
    """Return this process's number on its node, as set by torchrun."""
    return _fact("LOCAL_RANK", 0)


def environment_store(rank: int, ranks: int) -> dist.Store:
    """Return torchrun's store, or one that rank 0 of a job started otherwise hosts at ``MASTER_ADDR:MASTER_PORT``."""
    global _store
    if _store is None:
        address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
        if ranks > 1 and (address is None or port is None):
            raise CannotStart(
                "no MASTER_ADDR and MASTER_PORT in the environment: start with torchrun, or pass a store"
            )
        if ranks == 1 and port is None:
            _store = dist.HashStore()
        else:
            agent_hosts = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
            _store = dist.TCPStore(
                address or "127.0.0.1", int(port or 0), ranks, is_master=rank == 0 and not agent_hosts,
                timeout=timedelta(seconds=60), multi_tenant=True,
            )  # fmt: skip
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        _store = dist.PrefixStore(f"attempt{attempt}", _store)
    return _store


def _leave_at_exit() -> None:
    global _left_at_exit
    if not _left_at_exit:
        _left_at_exit = True
        at_exit(shutdown)


def _fact(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    try:
        return int(text)
    except ValueError:
        raise CannotStart(f"{variable}={text!r} in the environment is no number") from None
