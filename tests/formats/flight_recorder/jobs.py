"""Makes dumps as NCCL's process group records them: groups and their numbers, coalesced calls, sends, a ring."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

START_NS = 1_764_000_000_000_000_000
DONE, STARTED, SCHEDULED = "completed", "started", "scheduled"


@dataclass
class Counters:
    """What a process group counts on one rank."""

    collective: int = 0
    p2p: int = 0
    operation: int = 0


@dataclass
class Rank:
    """One rank's recorder."""

    rank: int
    groups: dict[str, tuple[str, Sequence[int]]]
    """Name -> description and members; those that the rank is in are listed in its dump."""
    version: str = "2.10"
    entries: list[dict[str, Any]] = field(default_factory=list)
    counters: dict[str, Counters] = field(default_factory=dict)

    def call(
        self, group: str, name: str, inputs: Sequence[int], outputs: Sequence[int] | None = None, state: str = DONE,
        dtype: str = "Float",
    ) -> None:  # fmt: skip
        """A collective on one tensor for each number of values."""
        counters = self._of(group)
        counters.collective += 1
        self.record(group, f"nccl:{name}", inputs, inputs if outputs is None else outputs, state, dtype)

    def coalesced(self, group: str, name: str, sizes: Sequence[int], state: str = DONE) -> None:
        """Several collectives under one number; the record that closes them has the state."""
        counters = self._of(group)
        counters.collective += 1
        for size in sizes:
            self.record(group, f"nccl:{name}", [size], [size], SCHEDULED)
        self.record(group, "nccl:coalesced", [], [], state)

    def message(self, group: str, sent: bool, peer: int, size: int, state: str = DONE) -> None:
        """A send to, or a receive from, a rank of the group."""
        self._of(group).p2p += 1
        self.record(group, self.channel(group, sent, peer), [size], [size], state, p2p=True)

    def batch(self, group: str, messages: Sequence[tuple[bool, int, int]], state: str = DONE) -> None:
        """Sends and receives (sent, peer, size) as ``batch_isend_irecv`` records them."""
        self._of(group).p2p += 1
        for sent, peer, size in messages:
            self.record(group, self.channel(group, sent, peer), [size], [size], SCHEDULED, p2p=True)
        self.record(group, "nccl:coalesced", [], [], state, p2p=True)

    def write(self, path: Path, ring: int = 10**9, as_json: bool = False) -> Path:
        """The last ``ring`` records, with the groups that the rank is in."""
        config = {
            name: {"name": name, "desc": description, "ranks": str(list(members))}
            for name, (description, members) in self.groups.items() if self.rank in members
        }  # fmt: skip
        dump = {
            "version": self.version, "nccl_version": "2.27.5", "pg_config": config, "pg_status": {},
            "entries": self.entries[-ring:],
        }  # fmt: skip
        path.write_bytes(json.dumps(dump).encode() if as_json else pickle.dumps(dump, protocol=2))
        return path

    def _of(self, group: str) -> Counters:
        return self.counters.setdefault(group, Counters())

    def channel(self, group: str, sent: bool, peer: int) -> str:
        own = list(self.groups[group][1]).index(self.rank)
        return f"nccl:send {own}->{peer}" if sent else f"nccl:recv {own}<-{peer}"

    def record(
        self, group: str, name: str, inputs: Sequence[int], outputs: Sequence[int], state: str, dtype: str = "Float",
        p2p: bool = False,
    ) -> None:  # fmt: skip
        counters = self._of(group)
        counters.operation += 1
        at = START_NS + 1_000_000 * len(self.entries)
        self.entries.append({
            "record_id": len(self.entries), "pg_id": list(self.groups).index(group),
            "process_group": (group, self.groups[group][0]), "collective_seq_id": counters.collective,
            "p2p_seq_id": counters.p2p, "op_id": counters.operation, "profiling_name": name, "time_created_ns": at,
            "input_sizes": [[size] for size in inputs], "input_dtypes": [dtype for _ in inputs],
            "output_sizes": [[size] for size in outputs], "output_dtypes": [dtype for _ in outputs], "state": state,
            "time_discovered_started_ns": None if state == SCHEDULED else at + 1000,
            "time_discovered_completed_ns": at + 2000 if state == DONE else None,
            "retired": state == DONE, "timeout_ms": 600_000, "is_p2p": p2p,
        })  # fmt: skip


def ranks_of(count: int, groups: dict[str, tuple[str, Sequence[int]]] | None = None, **more: Any) -> list[Rank]:
    """Recorders of ``count`` ranks, in one group of all of them unless told otherwise."""
    return [Rank(rank, groups or {"0": ("default_pg", range(count))}, **more) for rank in range(count)]


def written(folder: Path, ranks: Sequence[Rank], rings: Sequence[int] | None = None) -> list[Path]:
    """The ranks' dumps as files."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        rank.write(folder / f"nccl_trace_rank_{rank.rank}", *([rings[place]] if rings else []))
        for place, rank in enumerate(ranks)
    ]
