"""``coordsim profile``: run a training script as it is, record it, and say where its steps went."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from shlex import join, quote
from typing import Annotated, Any

import typer

from coordsim.cli import console
from coordsim.errors import EnvironmentProblem, InputError

FINDING = 1
_PREDICTABLE = 6
"""Steps that ``coordsim predict`` wants, and one to spare."""
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
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; the command's output goes to stderr.")
    ] = False,
) -> None:
    """Record a training command; say where its steps went."""
    program = _checked(command or [], steps)
    from coordsim.record.store import check_target

    check_target(out)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.absolute().parent))
    try:
        folder = scratch / "ranks"
        code = _run([program, *(command or [])[1:]], folder, steps, as_json)
        _told(code, command or [], out, folder)
        facts = _gathered(folder, out, command or [], steps, code)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _show(facts, out, as_json)
    console.next_command(_next(facts, out))
    if code:
        raise typer.Exit(code)


def _next(facts: dict[str, Any], out: Path) -> str:
    """At scale, where the run can be predicted from: ranks that gather parameters cannot be."""
    if facts["waited_for"] or facts["exit_code"] or facts["steps"] < _PREDICTABLE:
        return f"coordsim report {quote(str(out))} --json"
    return f"coordsim predict {quote(str(out))} --ranks 27600"


def _checked(command: list[str], steps: int) -> str:
    """The program's path. Raises InputError, EnvironmentProblem."""
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


def _run(command: list[str], folder: Path, steps: int, as_json: bool) -> int:
    """The command's exit code, as a shell has it; Ctrl-C and TERM reach it, and what is there is still gathered."""
    from real_backend.profile.launch import environment

    process = subprocess.Popen(command, env=environment(folder, steps), stdout=sys.stderr if as_json else None)
    with _patient(process):
        code = process.wait()
    return code if code >= 0 else 128 - code


@contextmanager
def _patient(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ctrl-C goes to the whole process group, so the command has it already; TERM is passed on."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: process.terminate()),
    }
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _told(code: int, command: list[str], out: Path, folder: Path) -> None:
    """Notes about how the command ended; leaves when nothing was recorded."""
    from real_backend.profile.launch import hooked, jobs

    started = jobs(folder)
    if any(folder.glob("*.rank")):
        if started > 1:
            console.note(f"the command started {started} jobs one after the other; told is the last that took steps")
        if code:
            console.note(f"the command ended with exit code {code}; what was recorded until then is kept in {out}")
        return
    if code:
        console.error(f"the command ended with exit code {code} before anything was recorded: {join(command)}")
    elif not hooked(folder):
        console.error(
            "nothing was recorded: no Python process of this command had hooks (does something in it replace "
            "PYTHONPATH, or call python with -I, -E or -S?)"
        )
    elif started:
        console.error(
            "nothing was recorded: no model under DDP or FSDP took a step, nor did backend coord or "
            "DistributedOptimizer"
        )
    else:
        console.error(
            "nothing was recorded: no process of this command called torch.distributed.init_process_group or "
            "real_backend.init"
        )
    console.next_command(_EXAMPLE)
    raise typer.Exit(code or FINDING)


def _gathered(folder: Path, out: Path, command: list[str], steps: int, code: int) -> dict[str, Any]:
    """Merge what ranks wrote and store it; the manifest."""
    from coordsim.analyse.recorded import empty, merged_run
    from coordsim.cli.provenance import provenance
    from coordsim.record.ranks import read_folder
    from coordsim.record.store import write_run

    for each in _of_other_jobs(folder):
        each.unlink()
    records = read_folder(folder)
    if any(record.steps for record in records):
        trace, facts = merged_run(records)
    else:
        trace, facts = empty(records)
    facts |= provenance(folder) | {"command": command, "exit_code": code, "steps_wanted": steps}
    write_run(out, trace, facts, folder)
    if not trace.steps["step"].size:
        console.error(f"no rank ended a step; what {len(records)} ranks wrote is in {out}")
        console.next_command(_EXAMPLE)
        raise typer.Exit(code or FINDING)
    from coordsim.analyse.run_summary import run_summary

    return run_summary(trace, facts)


def _of_other_jobs(folder: Path) -> list[Path]:
    """Records of ranks that a job before the last one had more of; every other one was written over."""
    from coordsim.record.ranks import read_rank

    records = [read_rank(path) for path in folder.glob("*.rank")]
    last = max(records, key=lambda each: int(each.head.get("started_unix_ns", 0))).head
    return [each.path for each in records if any(each.head.get(key) != last.get(key) for key in ("ranks", "job"))]


def _show(found: dict[str, Any], out: Path, as_json: bool) -> None:
    if as_json:
        console.data_json(found)
    else:
        from coordsim.report.run import run_report

        console.data(run_report(found, out.name, console.page()))
