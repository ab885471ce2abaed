"""``coordsim profile``: run an unchanged training script, record it, and report where its steps spend their time."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from shlex import join, quote
from typing import TYPE_CHECKING, Annotated

import typer

from coordsim.cli import console
from coordsim.cli.training import Done, detach_from_terminal, run
from coordsim.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordsim.analyse.answer import Answer
    from coordsim.record.ranks import RankRecord
    from coordsim.record.run import Streams
    from coordsim.record.run_facts import CommandEnd, RunFacts
    from coordsim.record.store import Stored

FINDING = 1
_PREDICTABLE = 6
"""Fewest steps for which ``coordsim predict`` is suggested: what it needs, and one to spare."""
_EXAMPLE = "coordsim profile -- torchrun --nproc-per-node 2 train.py"


def profile(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND", help="What starts the training, behind --.", show_default=False),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", help="Steps to record after the first one.")] = 20,
    out: Annotated[Path, typer.Option(metavar="RUN", help="Run directory; an earlier run is replaced.")] = Path(
        "profile"
    ),
    then_stop: Annotated[
        bool, typer.Option("--then-stop", help="End the command, with exit code 0, once the steps are recorded.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; the command's output goes to stderr.")
    ] = False,
) -> None:
    """Record a training command; say where its steps went."""
    program = _find_program(command or [], steps)
    from coordsim.record.store import check_target

    check_target(out)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.absolute().parent))
    job = _Job(command or [], scratch / "ranks", out, steps, then_stop)
    try:
        done = run([program, *(command or [])[1:]], job.folder, steps, as_json, then_stop, job.recorded)
        if done.hangup:
            detach_from_terminal()
        answer = job.ended(done)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _show(answer, out, as_json)
    console.next_command(_next(answer, out))
    if done.code:
        raise typer.Exit(done.code)


def _next(answer: Answer, out: Path) -> str:
    """Return the next command: more ranks on the same machine.

    A described machine is named where ends of collectives are not known (on a GPU).
    """
    command = answer.facts.command
    failed = command is not None and command.exit_code
    if failed or answer.steps < _PREDICTABLE:
        return f"coordsim report {quote(str(out))} --json"
    if "exposed_collective" in answer.facts.missing:
        return f"coordsim predict {quote(str(out))} --ranks 27600 --cluster summit"
    return f"coordsim predict {quote(str(out))} --ranks {2 * (answer.facts.ranks or 1)}"


def _find_program(command: list[str], steps: int) -> str:
    """Return the program's path. Raises InputError or EnvironmentProblem."""
    if not command:
        raise InputError.one("COMMAND", "", None, f"what is to be recorded? Such as: {_EXAMPLE}")
    if steps < 1:
        raise InputError.one("--steps", "", steps, f"{steps} is too few; at least 1")
    if find_spec("torch") is None:
        raise EnvironmentProblem("profiling needs torch: pip install 'coordsim[torch]'")
    program = shutil.which(command[0])
    if program is None:
        raise InputError.one("COMMAND", "", command[0], f"{command[0]} is no program that can be run from here")
    return program


class _Job:
    """One command that is recorded, and the run directory that it gives."""

    def __init__(self, command: list[str], folder: Path, out: Path, steps: int, then_stop: bool) -> None:
        self.command, self.folder, self.out, self.steps, self.then_stop = command, folder, out, steps, then_stop
        self._stored: Stored | None = None

    def recorded(self, ranks: int) -> None:
        """Store the run while the command goes on, since all steps have been recorded."""
        on = f"{ranks} rank" + ("s" if ranks != 1 else "")
        steps = f"{self.steps} step" + ("s" if self.steps != 1 else "")
        try:
            self._stored = self._store(None, running=True)
        except (OSError, ValueError) as error:
            console.note(f"recorded {steps} on {on}; they are stored when the command ends ({error})")
            return
        after = "the command is stopped now" if self.then_stop else "stop: Ctrl-C, or --then-stop next time"
        console.note(f"recorded {steps} on {on}; see them now: coordsim report {quote(str(self.out))}; {after}")

    def ended(self, done: Done) -> Answer:
        """Store what was recorded, report what went wrong, and return the summary.

        Raises typer.Exit when nothing was recorded.
        """
        line = done.line(self.command[0])
        if not any(self.folder.glob("*.rank")):
            self._explain_nothing(done, line)
        from coordsim.analyse.answer.opened import answer_of

        if line is not None:
            console.error(line)
        stored = self._store(done.code, _end_of(done, line))
        trace, facts, _ = stored
        if not trace.steps["step"].size:
            console.error(f"no rank ended a step; what {len(facts.hosts)} ranks wrote is in {self.out}")
            console.next_command(_EXAMPLE)
            raise typer.Exit(done.code or FINDING)
        self._print_notes(done, facts, int(trace.steps["step"].size))
        return answer_of(stored)

    def _store(self, exit_code: int | None, end: CommandEnd | None = None, running: bool = False) -> Stored:
        """Merge the ranks' records into the run directory.

        Where the last job recorded no step, the run of an earlier one stays in the directory.
        """
        from coordsim.cli.provenance import provenance
        from coordsim.record.run import Streams
        from coordsim.record.run_facts import Command
        from coordsim.record.store import read_run, write_run

        for path in _records_of_other_jobs(self.folder):
            path.unlink()
        streams = Streams(self.folder)
        records = streams.records
        command = Command(exit_code, tuple(self.command), self.steps, running, end)
        if self._stored is not None and not any(record.steps for record in records):
            kept = read_run(self.out)
            again = kept._replace(facts=replace(kept.facts, command=command))
            write_run(self.out, *again, self.out / "ranks")
            return again
        made = _merge(streams)
        facts = replace(
            made.facts, command=command, provenance=provenance(self.folder), skipped_steps=_count_skipped(records)
        )
        write_run(self.out, made.trace, facts, made.findings, self.folder)
        return made._replace(facts=facts)

    def _print_notes(self, done: Done, facts: RunFacts, steps: int) -> None:
        from real_backend.profile.launch import jobs

        started = jobs(self.folder)
        if started > 1:
            sizes = f" (of {', then '.join(map(str, done.sizes))} ranks)" if len(done.sizes) > 1 else ""
            console.note(
                f"the command started {started} jobs one after the other{sizes}; "
                "the last one that took steps is reported"
            )
        if done.code:
            console.note(
                f"the command ended with exit code {done.code}; what was recorded until then is kept in {self.out}"
            )
        if done.hangup:
            fate = facts.command.end.fate if facts.command is not None and facts.command.end is not None else ""
            console.note(f"{fate}; what was recorded is kept in {self.out}")
        skipped = facts.skipped_steps
        if skipped and skipped[0] == skipped[1]:
            console.note(
                f"GradScaler skipped the optimizer in all {skipped[1]} steps: their gradients were not finite, and "
                "the parameters did not change"
            )
        if steps == 1 and facts.first_step == 0:
            console.note("only the first step was recorded, which is cold: the script took no second one")

    def _explain_nothing(self, done: Done, line: str | None) -> None:
        """Report why nothing was recorded, and exit."""
        from real_backend.profile.launch import hooked, jobs

        if done.code:
            console.error(
                f"the command ended with exit code {done.code} before anything was recorded: "
                + (line or join(self.command))
            )
        elif done.unhooked is not None:
            console.error(f"nothing was recorded: {done.unhooked}")
        elif not hooked(self.folder):
            console.error(
                "nothing was recorded: no Python process of this command had hooks (does something in it replace "
                "PYTHONPATH, or call python with -I, -E or -S?)"
            )
        elif jobs(self.folder):
            console.error(
                "nothing was recorded: the script joined a process group, but no optimizer was made and no model under "
                "DDP or FSDP was called"
            )
        else:
            console.error(
                "nothing was recorded: no process of this command made an optimizer of torch and called backward, and "
                "none called torch.distributed.init_process_group or real_backend.init"
            )
        console.next_command(_EXAMPLE)
        raise typer.Exit(done.code or FINDING)


def _merge(streams: Streams) -> Stored:
    """Merge the ranks' records into a run with its findings; an empty run if no rank ended a step."""
    from coordsim.analyse.findings import find_out
    from coordsim.record.ranks.facts import facts_of
    from coordsim.record.store import Stored
    from coordsim.record.trace import TraceWriter

    records = streams.records
    if not any(record.steps for record in records):
        without_steps = [record.rank for record in records]
        return Stored(TraceWriter().finish(), facts_of(records, range(0), without_steps, ()), None)
    merged = streams.merged
    return Stored(merged.trace, merged.facts, find_out(merged))


def _count_skipped(records: Sequence[RankRecord]) -> tuple[int, int]:
    """Return the number of steps that GradScaler skipped, and of all steps, on the rank that has most steps."""
    kinds = [[step.step_kind for step in record.steps] for record in records]
    of_rank = max(kinds, key=len, default=[])
    return sum("skipped" in kind and "skipped " not in kind for kind in of_rank), len(of_rank)


def _end_of(done: Done, line: str | None) -> CommandEnd:
    """Return how the command and its ranks ended; ``line`` says which rank failed first."""
    from coordsim.record.run_facts import CommandEnd, Ending

    fate = "the training ended by itself" if not done.code else f"the training ended with exit code {done.code}"
    if done.running:
        fate = f"the training still runs on ranks {', '.join(str(rank) for rank, _ in done.running)}"
    return CommandEnd(
        failure=line,
        endings=tuple(
            Ending(rank=each.rank, how=each.how, code=each.code, signal=each.signal, words=each.words, where=each.where)
            for each in done.endings
        ),
        fate=f"the terminal was closed; {fate}" if done.hangup else fate,
        stopped="recorded" if done.stopped_recorded else (done.stopped_by or None), world_sizes=tuple(done.sizes),
    )  # fmt: skip


def _records_of_other_jobs(folder: Path) -> list[Path]:
    """Return records of ranks that only an earlier job had; the last job overwrote all others."""
    from coordsim.record.ranks.folder import headless, read_rank

    records = [read_rank(path) for path in folder.glob("*.rank") if not headless(path)]
    last = max(records, key=lambda record: record.started_unix_ns).head
    return [each.path for each in records if any(each.head.get(key) != last.get(key) for key in ("ranks", "job"))]


def _show(answer: Answer, out: Path, as_json: bool) -> None:
    from coordsim.report.answer import answer_json, answer_screen

    if as_json:
        console.data_json(answer_json(answer))
    else:
        console.data(answer_screen(answer, out.name, console.page()))
