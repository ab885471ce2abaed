"""What is a RUN? :func:`open_run` is the only answer, for every verb and for people who write Python.

>>> from coordsim import open_run
>>> run = open_run("profile")  # doctest: +SKIP
>>> run.facts.ranks, run.trace.steps["step"].size  # doctest: +SKIP
(2, 21)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from coordsim.errors import InputError
from coordsim.record.findings import Findings
from coordsim.record.ranks.merge import Merged, merge_records
from coordsim.record.ranks.reader import RankRecord, read_folder
from coordsim.record.run_facts import RunFacts
from coordsim.record.store import read_run
from coordsim.record.trace import Trace


class Streams:
    """Ranks' records of one run, read when they are first asked for."""

    def __init__(self, folder: Path, steps: range | None = None) -> None:
        self.folder, self.steps = folder, steps

    @cached_property
    def records(self) -> tuple[RankRecord, ...]:
        """Of every rank that has one, by rank. Raises InputError when there are none, or those of two runs."""
        return tuple(read_folder(self.folder))

    @cached_property
    def merged(self) -> Merged:
        """As one trace, of the steps that were asked for. Raises InputError when no step can be merged."""
        return merge_records(self.records, self.steps)


@dataclass(frozen=True)
class Run:
    """One run, however it came to be: simulated, recorded by ranks, or imported from another tool's recording."""

    path: Path
    trace: Trace
    """Tables of cycles, responses and steps, times in ns (:class:`coordsim.record.trace.Trace`)."""
    facts: RunFacts
    findings: Findings | None = None
    """What was found out when the run directory was written; None where nothing was kept."""
    streams: Streams | None = None
    """Where ranks' records are; None of a run that keeps none."""
    merged: Merged | None = None
    """The ranks' records that :attr:`trace` was merged from just now; None where it was read from a run directory."""
    stored: bool = True
    """Whether it is a run directory, rather than a folder of ranks' records."""

    @property
    def name(self) -> str:
        """What it is called on screen."""
        return self.path.name or str(self.path)

    @property
    def records(self) -> tuple[RankRecord, ...]:
        """Ranks' records, by rank; empty where the run keeps none. Raises InputError for damaged ones."""
        return self.streams.records if self.streams is not None else ()

    @property
    def steps(self) -> range:
        """Numbers of the trace's steps."""
        return range(self.facts.first_step, self.facts.first_step + int(self.trace.steps["step"].size))


def open_run(path: str | Path, steps: range | None = None) -> Run:
    """Open a run directory (simulated, profiled, imported, merged) or a folder of ranks' records.

    ``steps``: numbers of the steps that are wanted; they are merged from the ranks' records, wherever these are. Raises
    InputError for what is no run, a damaged one, one of a later version, and for ``steps`` that it does not have or, as
    it keeps no ranks' records, cannot choose.
    """
    path = Path(path)
    inside = path / "ranks"
    if not (path / "manifest.json").is_file():
        streams = Streams(inside if inside.is_dir() else path, steps)
        merged = streams.merged
        return Run(path, merged.trace, merged.facts, None, streams, merged, stored=False)
    stored = read_run(path)
    if steps is None:
        return Run(path, *stored, Streams(inside) if inside.is_dir() else None)
    if not inside.is_dir():
        message = f"{path} keeps no ranks' records, so its steps were chosen when it was made"
        raise InputError.one("--steps", "", f"{steps.start}:{steps.stop}", message)
    streams = Streams(inside, steps)
    command = None if stored.facts.command is None else replace(stored.facts.command, running=False)
    merged = streams.merged
    return Run(path, merged.trace, replace(merged.facts, command=command), None, streams, merged)
