"""Exchanges over MPI (mpi4py, an extra), for jobs started by mpirun.

MPI waits by spinning, so it is slow on a machine with fewer cores than ranks, as it is under Horovod.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from coordsim.protocol.negotiator import COORDINATOR
from real_backend.control.collective import CollectiveTransport
from real_backend.engine.settings import EngineSettings
from real_backend.errors import CannotStart

_TAG = 7


class MpiTransport(CollectiveTransport):
    """A duplicate of MPI_COMM_WORLD. MPI must allow calls from the background thread (MPI_THREAD_MULTIPLE)."""

    def __init__(self, rank: int, ranks: int, settings: EngineSettings) -> None:
        """Raises CannotStart if mpi4py is missing, or if MPI has other ranks."""
        super().__init__(rank, ranks, settings.tree_radix(ranks))
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            message = f"control 'mpi' needs mpi4py and an MPI: pip install 'coordsim[mpi]' ({error})"
            raise CannotStart(message) from error
        world = MPI.COMM_WORLD
        if (world.rank, world.size) != (rank, ranks):
            raise CannotStart(
                f"MPI has this process as rank {world.rank} of {world.size}, not {rank} of {ranks}: start with mpirun"
            )
        if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
            raise CannotStart("this MPI does not allow calls from several threads (MPI_THREAD_MULTIPLE)")
        self._mpi = MPI
        self._world: Any = world.Dup()

    def reduce(self, value: int, words: int, *, intersect: bool) -> int:
        vector = np.frombuffer(value.to_bytes(8 * words, "little"), dtype=np.uint64).copy()
        self._world.Allreduce(self._mpi.IN_PLACE, vector, op=self._mpi.BAND if intersect else self._mpi.BOR)
        return int.from_bytes(vector.tobytes(), "little")

    def gather(self, data: bytes) -> list[bytes] | None:
        lengths = self._world.gather(len(data), root=COORDINATOR)
        if self.rank != COORDINATOR:
            self._world.Gatherv([data, len(data), self._mpi.BYTE], None, root=COORDINATOR)
            return None
        everything = bytearray(sum(lengths))
        self._world.Gatherv([data, len(data), self._mpi.BYTE], [everything, lengths, self._mpi.BYTE], root=COORDINATOR)
        parts, at = [], 0
        for length in lengths:
            parts.append(bytes(everything[at : at + length]))
            at += length
        return parts

    def broadcast(self, data: bytes) -> bytes:
        length = np.array([len(data)], dtype=np.int64)
        self._world.Bcast(length, root=COORDINATOR)
        values = bytearray(data if self.rank == COORDINATOR else int(length[0]))
        self._world.Bcast([values, self._mpi.BYTE], root=COORDINATOR)
        return bytes(values)

    def send(self, rank: int, data: bytes) -> None:
        self._world.Send([data, self._mpi.BYTE], dest=rank, tag=_TAG)

    def receive(self, rank: int) -> bytes:
        status = self._mpi.Status()
        self._world.Probe(source=rank, tag=_TAG, status=status)
        values = bytearray(status.Get_count(self._mpi.BYTE))
        self._world.Recv([values, self._mpi.BYTE], source=rank, tag=_TAG)
        return bytes(values)

    def break_off(self) -> None:
        """Do nothing: MPI cannot leave a collective, and by default ends the whole job when a rank dies."""

    def close(self) -> None:
        self._world.Free()
