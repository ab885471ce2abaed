"""Reads a run, chooses its steps, and gives them to the writer of a format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coordsim.errors import InputError
from coordsim.formats.chakra import writer as chakra
from coordsim.formats.chrome import writer as chrome
from coordsim.formats.horovod import ranks_writer as horovod
from coordsim.formats.perfetto import writer as perfetto
from coordsim.formats.picture.run_picture import picture
from coordsim.record.ranks import RankRecord, merge_records
from coordsim.record.run import open_run
from coordsim.record.run_facts import RunFacts
from coordsim.record.trace import Trace
from coordsim.report.export import recorded, simulated


@dataclass(frozen=True)
class Exported:
    """What was written, and what not."""

    path: Path
    what: str
    """In a few words."""
    left_out: list[str]
    """Sentences."""
    negotiates: bool = True
    """Whether a timeline has cycles, whose decisions can be judged."""


@dataclass(frozen=True)
class _Job:
    """A run that is to be exported."""

    path: Path
    trace: Trace
    facts: RunFacts
    records: Sequence[RankRecord]
    """Of ranks; empty for a run directory that does not keep them."""
    base_ns: int
    wanted: range
    """Numbers of the steps."""
    asked: bool
    """Whether they were asked for; else they are all."""
    warn: Callable[[str], None]
    watch: simulated.Watch

    @property
    def rows(self) -> list[int]:
        """Their rows in the trace."""
        return [number - self.facts.first_step for number in self.wanted]


class _Unwatched:
    """Nobody looks."""

    def begin(self, title: str) -> None:
        pass

    def update(self, done: int, total: int) -> None:
        pass


def export_run(
    run: Path, to: str, out: Path | None, steps: range | None, limit: int,
    warn: Callable[[str], None] = lambda _: None, watch: simulated.Watch | None = None,
) -> Exported:  # fmt: skip
    """Write ``run`` (a run directory, or a folder of ranks' records) in the format ``to``, one of :data:`FORMATS`.

    ``out``: the file, of chakra a prefix; default: named after the run, in the working directory. ``steps``: their
    numbers, None for all that fit and do not take too long. ``limit``: events (nodes, operations) at most. ``warn`` is
    told, before it begins, what will take long, and ``watch`` then how far it is.

    Raises InputError for what is no run, has no such steps, or does not keep what the format needs;
    EnvironmentProblem for a missing extra; OSError.
    """
    suffix, write = FORMATS[to]
    path = out if out is not None else Path((run.name or run.resolve().name) + suffix)
    if not path.absolute().parent.is_dir():
        raise InputError.one("--out", "", str(path), f"folder {path.absolute().parent} does not exist")
    if path.is_dir() and to != "chakra":
        raise InputError.one("--out", "", str(path), f"{path} is a folder; name a file")
    return write(_read(run, steps, warn, watch or _Unwatched()), path, limit)


def _read(path: Path, within: range | None, warn: Callable[[str], None], watch: simulated.Watch) -> _Job:
    """Where ranks' records are kept they are what is exported; else the run directory's trace."""
    run = open_run(path)
    trace, facts, base_ns = run.trace, run.facts, 0
    if run.streams is not None:
        merged = run.streams.merged if within is None else merge_records(run.records, within)
        trace, facts, base_ns = merged.trace, merged.facts, merged.base_ns
    there = range(facts.first_step, facts.first_step + int(trace.steps["step"].size))
    wanted = there if within is None else range(max(there.start, within.start), min(there.stop, within.stop))
    if not wanted:
        have = f"{there.start}:{there.stop}"
        raise InputError.one("--steps", "", str(within), f"{path} has none of these steps; it has {have}")
    return _Job(path, trace, facts, run.records, base_ns, wanted, within is not None, warn, watch)


def _chrome(run: _Job, path: Path, limit: int) -> Exported:
    shown = picture(run.trace, run.facts, run.records, run.base_ns, run.wanted, limit)
    chrome.write_chrome(path, shown)
    return Exported(path, f"{len(shown.events):,} events on {len(shown.tracks):,} tracks", shown.told())


def _perfetto(run: _Job, path: Path, limit: int) -> Exported:
    shown = picture(run.trace, run.facts, run.records, run.base_ns, run.wanted, limit)
    perfetto.write_perfetto(path, shown)
    return Exported(path, f"{len(shown.events):,} events on {len(shown.tracks):,} tracks", shown.told())


def _horovod(run: _Job, path: Path, limit: int) -> Exported:
    if not run.records:
        bounds = simulated.Bounds(run.wanted, run.asked, limit)
        done = simulated.timeline(run.path, run.facts, run.trace, bounds, path, run.warn, run.watch)
        return Exported(path, *done)
    written = horovod.write_horovod(path, run.records, run.base_ns, run.wanted, limit)
    if not written.steps:
        raise InputError.one("--max-events", "", limit, "not even one step fits")
    told = [f"left out for size: {written.left_out:,} steps"] if written.left_out else []
    silent = [record.rank for record in run.records if not record.detailed]
    if silent:
        told.append(f"{len(silent):,} of {len(run.records):,} ranks recorded steps only: no ticks of theirs")
    negotiates = any(record.cycles for record in run.records)
    if not negotiates:
        told.append("nobody negotiates in this run: NEGOTIATE lasts from when a collective could begin on the first "
                    "rank to when it could on the last one")  # fmt: skip
    return Exported(path, f"{written.steps:,} steps, up to {written.events:,} events", told, negotiates)


def _chakra(run: _Job, path: Path, limit: int) -> Exported:
    told = ["no control plane: Chakra has no negotiation; collectives are ordered as they were executed"]
    if run.records:
        silent = [record.rank for record in run.records if not record.detailed]
        if silent or len(run.records) < (run.facts.ranks or 0):
            message = "chakra needs details of every rank (COORDSIM_RECORD_SAMPLED_RANKS)"
            raise InputError.one(str(run.path), "", silent, message)
        workloads = [chakra.recorded_workload(record, run.wanted, run.base_ns) for record in run.records]
        skipped = workloads[0].skipped
        told += [f"{skipped:,} responses a rank that are no collective of the schema"] if skipped else []
    else:
        ranks = run.facts.ranks
        if not ranks:
            raise InputError.one(str(run.path), "ranks", None, "the run does not say how many ranks it had")
        workloads = [chakra.simulated_workload(run.trace, run.rows)] * ranks
        told.append("all ranks alike, with the last one's compute: a run directory does not keep each rank's")
    room, kept = limit // len(workloads), 0
    for step, nodes in enumerate(workloads[0].nodes):
        room -= nodes
        if room < 0:
            break
        kept = step + 1
    if not kept:
        message = f"not even one step fits: it has {workloads[0].nodes[0]:,} nodes on each of {len(workloads):,} ranks"
        raise InputError.one("--max-events", "", limit, message)
    left = len(workloads[0].steps) - kept
    told += [f"left out for size: {left:,} steps"] if left else []
    cut = [chakra.Workload(each.steps[:kept]) for each in workloads]
    files = chakra.write_chakra(path, cut, f"coordsim export of {run.path.name}: " + "; ".join(told))
    nodes = sum(sum(each.nodes) for each in cut)
    return Exported(path, f"{nodes:,} nodes in {files[0].name} to {files[-1].name}", told)


def _goal(run: _Job, path: Path, limit: int) -> Exported:
    if run.records:
        return Exported(path, *recorded.goal(run.records, run.wanted, path, limit))
    return Exported(path, *simulated.goal(run.path, run.facts, path, limit))


FORMATS: dict[str, tuple[str, Callable[[_Job, Path, int], Exported]]] = {
    "perfetto": (perfetto.SUFFIX, _perfetto),
    "chrome": (chrome.SUFFIX, _chrome),
    "goal": (".goal", _goal),
    "chakra": ("", _chakra),
    "horovod": (horovod.SUFFIX, _horovod),
}
"""Name -> what the file's name ends with, and what writes it."""
