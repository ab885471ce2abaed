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
from coordsim.record.ranks.folder import read_folder
from coordsim.record.ranks.merge import Merged, merge_records
from coordsim.record.ranks.reader import SUFFIX, RankRecord
from coordsim.record.run_facts import RunFacts
from coordsim.record.store import Stored, read_run
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
        merged = merge_records(self.records, self.steps)
        read = {record.path.name for record in self.records}
        lost = sorted(path.name for path in self.folder.glob(f"*{SUFFIX}") if path.name not in read)
        if not lost:
            return merged
        more = f" and {len(lost) - 3:,} more" if len(lost) > 3 else ""
        why = "ends before its head, so that nothing says whose it is: it is left out"
        unknown = {**merged.facts.unknown, ", ".join(lost[:3]) + more: why}
        return replace(merged, facts=replace(merged.facts, unknown=unknown))


@dataclass(frozen=True)
class Run:
    """One run, however it came to be: simulated, recorded by ranks, or imported from another tool's recording."""

    path: Path
    kept: Stored | None
    """What its run directory keeps; None of a folder of ranks' records."""
    streams: Streams | None
    """Its ranks' records; None where it keeps none."""

    @property
    def name(self) -> str:
        """What it is called on screen."""
        return self.path.name or str(self.path)

    @property
    def merged(self) -> Merged | None:
        """The ranks' records that :attr:`trace` is merged from; None where it is the run directory's own.

        Raises InputError where no step can be merged, as do all properties below of such a run.
        """
        if self.streams is None or (self.kept is not None and self.streams.steps is None):
            return None
        return self.streams.merged

    @property
    def trace(self) -> Trace:
        """Tables of cycles, responses and steps, times in ns (:class:`coordsim.record.trace.Trace`)."""
        return self._stored.trace

    @property
    def facts(self) -> RunFacts:
        """What is known of the run beside its trace."""
        return self._stored.facts

    @property
    def findings(self) -> Findings | None:
        """What was found out when the run directory was written; None where nothing was kept for these steps."""
        return self._stored.findings

    @property
    def steps(self) -> range:
        """Numbers of the trace's steps."""
        return range(self.facts.first_step, self.facts.first_step + int(self.trace.steps["step"].size))

    @property
    def records(self) -> tuple[RankRecord, ...]:
        """Ranks' records, by rank; empty where the run keeps none. Raises InputError for those of two runs."""
        return self.streams.records if self.streams is not None else ()

    @cached_property
    def _stored(self) -> Stored:
        merged = self.merged
        if merged is None:
            assert self.kept is not None
            return self.kept
        facts = merged.facts
        if self.kept is not None and self.kept.facts.command is not None:
            facts = replace(facts, command=replace(self.kept.facts.command, running=False))
        return Stored(merged.trace, facts, None)


def open_run(path: str | Path, steps: range | None = None) -> Run:
    """Open a run directory (simulated, profiled, imported, merged) or a folder of ranks' records.

    ``steps``: numbers of the steps that are wanted; they are merged from the ranks' records, wherever these are.
    Raises InputError for what is no run, a damaged one, one of a later version, and for ``steps`` of a run that keeps
    no ranks' records.
    """
    path = Path(path)
    inside = path / "ranks"
    if not (path / "manifest.json").is_file():
        run = Run(path, None, Streams(inside if inside.is_dir() else path, steps))
        assert run.records
        return run
    kept = read_run(path)
    if inside.is_dir():
        return Run(path, kept, Streams(inside, steps))
    if steps is not None:
        message = f"{path} keeps no ranks' records, so its steps were chosen when it was made"
        raise InputError.one("--steps", "", f"{steps.start}:{steps.stop}", message)
    return Run(path, kept, None)
