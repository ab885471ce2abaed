"""The jobs of the prediction benchmark, and the numbers of ranks at which each is recorded and measured."""

from __future__ import annotations

from dataclasses import dataclass

RECORDED = 2
"""Ranks of the runs that predictions start from."""
MEASURED = (3, 4, 8)
"""Ranks of the runs that predictions are compared with."""
KINDS = ("ddp", "coord", "optimizer", "fsdp2")


@dataclass(frozen=True)
class Job:
    """One shape of work, run with every kind of reduction."""

    name: str
    arguments: tuple[str, ...]


JOBS = (
    Job("sleeping", ("--layers", "6", "--width", "256", "--forward-ms", "20", "--backward-ms", "20")),
    Job("computing", ("--layers", "6", "--width", "512", "--batch", "64", "--bucket-mb", "2")),
    Job("mixed", ("--layers", "12", "--width", "256", "--batch", "32", "--input-ms", "8", "--forward-ms", "10",
                  "--optimizer-ms", "5")),
)  # fmt: skip


def cases() -> list[tuple[Job, str, int]]:
    """(job, kind, ranks) in the order of measuring: a job and kind at all its numbers of ranks, close in time."""
    return [(job, kind, ranks) for job in JOBS for kind in KINDS for ranks in (RECORDED, *MEASURED)]


def run_name(job: Job, kind: str, ranks: int) -> str:
    """Of a run's folder."""
    return f"{job.name}-{kind}-n{ranks}"
