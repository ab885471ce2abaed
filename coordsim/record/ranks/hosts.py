"""The hosts that ranks ran on: whether each thread that computes had a core."""

from __future__ import annotations

from collections.abc import Sequence

from coordsim.record.ranks.reader import RankRecord
from coordsim.record.run_facts import Machine


def machines(records: Sequence[RankRecord]) -> list[Machine]:
    """Every host of ``records``, in order of its first rank."""
    by_host: dict[str, list[RankRecord]] = {}
    for record in records:
        by_host.setdefault(record.host, []).append(record)
    return [_machine(host, members) for host, members in by_host.items()]


def _machine(host: str, members: Sequence[RankRecord]) -> Machine:
    cores = {core for record in members for core in _cores(record)}
    threads = [count for record in members if (count := torch_threads(record)) is not None]
    local = [told for record in members if isinstance(told := record.head.get("local_ranks"), int)]
    return Machine(host, max([len(members), *local]), max(threads, default=None), len(cores) or None)


def torch_threads(record: RankRecord) -> int | None:
    """How many threads compute in the rank (torch's); None where the record does not say."""
    threads = record.head.get("threads")
    count = threads.get("torch") if isinstance(threads, dict) else None
    return count if isinstance(count, int) else None


def _cores(record: RankRecord) -> list[int]:
    told = record.head.get("cores")
    return [core for core in told if isinstance(core, int)] if isinstance(told, list) else []
