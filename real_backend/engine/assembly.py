"""Assembles an engine: connections, control and data transport, life line, recorder."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from coordsim.protocol.negotiator import COORDINATOR
from real_backend.control.rendezvous import Neighbours, Purpose, connect
from real_backend.control.stores import Store
from real_backend.control.transport import ControlTransport
from real_backend.control.tree import TreeTransport
from real_backend.data.transport import DataTransport, NoData
from real_backend.engine.engine import Engine
from real_backend.engine.observer import Observer, Observers
from real_backend.engine.settings import EngineSettings
from real_backend.errors import CannotStart
from real_backend.life.line import LifeLine
from real_backend.profile import attach
from real_backend.recorder import Limits, Recorder
from real_backend.timeline import TimelineObserver

if TYPE_CHECKING:
    import torch.distributed as dist

_generation_lock = threading.Lock()
_generations: dict[str, int] = {}


def assemble(
    settings: EngineSettings, store: Store, rank: int, ranks: int, *, job: str = "job",
    observers: Sequence[Observer] = (), clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> Engine:  # fmt: skip
    """Return an engine that is connected but not started.

    All ranks must call it, equally often, with the same ``job``. Raises CannotStart if ranks do not find each other, if
    a transport is not available, or, before any connection, if a record or timeline cannot be written.
    """
    watching = list(observers)
    recorder = timeline = None
    try:
        if settings.record:
            recorder = _recorder(settings, rank, ranks, job, clock_ns)
            watching.append(recorder)
        if rank == COORDINATOR:
            path = Path(settings.timeline) if settings.timeline else None
            timeline = TimelineObserver(path, settings.timeline_mark_cycles, clock_ns)
            watching.append(timeline)
    except OSError as error:
        raise CannotStart(f"cannot write {error.filename or settings.record}: {error.strerror}") from error
    prefix = f"coordsim/{job}/{_generation(job)}"
    neighbours = connect(
        store, rank, ranks, settings.tree_radix(ranks), prefix=prefix, interface=settings.interface,
        timeout_s=settings.start_timeout_ns / 1e9,
    )  # fmt: skip
    control = _control(settings, store, neighbours[Purpose.CONTROL], prefix)
    data = _data(settings, store, rank, ranks, control, prefix, clock_ns)
    engine: list[Engine] = []
    life = LifeLine(
        neighbours[Purpose.LIFE], settings.peer_timeout_ns / 1e9, lambda: engine[0].thread_alive,
        lambda lost, reason: engine[0].lose(lost, reason), lambda text: engine[0].tell(text), clock_ns,
    )  # fmt: skip
    if recorder is not None:
        recorder.offset = lambda: life.clock
        attach(recorder)
    observer = watching[0] if len(watching) == 1 else Observers(watching)
    engine.append(Engine(settings, control, data, life, observer=observer, clock_ns=clock_ns))
    engine[0].timeline = timeline
    return engine[0]


def _recorder(settings: EngineSettings, rank: int, ranks: int, job: str, clock_ns: Callable[[], int]) -> Recorder:
    limits = Limits(
        settings.record_first_steps, settings.record_worst_steps, settings.record_sampled_ranks,
        settings.record_max_bytes, settings.record_digests, settings.record_steps,
    )  # fmt: skip
    return Recorder(
        Path(settings.record), rank, ranks, job=job, settings=asdict(settings), limits=limits, clock_ns=clock_ns
    )


def _generation(job: str) -> int:
    """Return how often this process has assembled ``job``, so that a second init does not read the first one's keys."""
    with _generation_lock:
        _generations[job] = _generations.get(job, 0) + 1
        return _generations[job]


def _control(settings: EngineSettings, store: Store, neighbours: Neighbours, prefix: str) -> ControlTransport:
    if settings.control == "gloo":
        from real_backend.control.gloo import GlooTransport

        neighbours.close()
        return GlooTransport(_torch_store(store, f"{prefix}/control"), neighbours.rank, neighbours.ranks, settings)
    if settings.control == "mpi":
        from real_backend.control.mpi import MpiTransport

        neighbours.close()
        return MpiTransport(neighbours.rank, neighbours.ranks, settings)
    return TreeTransport(neighbours)


def _data(
    settings: EngineSettings, store: Store, rank: int, ranks: int, control: ControlTransport, prefix: str,
    clock_ns: Callable[[], int],
) -> DataTransport:  # fmt: skip
    if settings.data == "none":
        return NoData(clock_ns)
    from real_backend.data.torch_data import TorchData

    links = control if isinstance(control, TreeTransport) else None
    return TorchData(_torch_store(store, f"{prefix}/data"), rank, ranks, settings, links, clock_ns)


def _torch_store(store: Store, prefix: str) -> dist.Store:
    import torch.distributed as dist

    if not isinstance(store, dist.Store):
        raise CannotStart("gloo needs a store of torch.distributed; ranks without torch use control 'tcp', data 'none'")
    return dist.PrefixStore(prefix, store)
