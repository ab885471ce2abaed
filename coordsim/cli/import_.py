"""``coordsim import``: what other tools recorded, as a run or as a part of a scenario."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordsim.cli import console
from coordsim.cli.kernels import title
from coordsim.cli.progress import Bar
from coordsim.errors import InputError

if TYPE_CHECKING:
    from coordsim.formats.imported import Imported

SCHEMA = "coordsim.import/1"
_AUTO = "auto"


def import_(
    source: Annotated[
        Path, typer.Argument(metavar="FILE_OR_DIR", help="The source: a file, plain or gzip, or a folder of one job's.")
    ],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="F",
            help="horovod, kineto, flight-recorder, chakra, nccl-tests, nccl-inspector, nccl-debug, gloo-benchmark; "
            "auto: by content.",
        ),
    ] = _AUTO,
    out: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="A run directory, or a .csv or .toml for a scenario.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Recordings of Horovod, PyTorch, NCCL, gloo: a run or more."""
    from coordsim.formats.table import FORMATS, import_source

    if form not in (_AUTO, *FORMATS):
        raise InputError.one("--format", "", form, f"{form!r} is not known", (_AUTO, *FORMATS))
    if out is not None:
        _check(out)
    with Bar(title("reading")):
        found = import_source(source, form)
    made = _write(out, found) if out is not None else None
    facts = {
        "schema": SCHEMA, "format": found.format, "files": found.files, "found": found.summary,
        "unknown": found.unknown, "gives": _gives(found), "out": str(out) if made else None,
    }  # fmt: skip
    if as_json:
        console.data_json(facts)
    else:
        from coordsim.report.imported import import_report

        console.data(import_report(facts, source.name or str(source), console.page()))
    console.next_command(_next(source, found, out, made))


def _check(out: Path) -> None:
    """Nothing that took minutes to read should end in a name that cannot be written."""
    if out.suffix not in (".csv", ".toml"):
        from coordsim.record.store import check_target

        check_target(out)
    elif out.is_dir() or not out.absolute().parent.is_dir():
        why = f"{out} is a folder" if out.is_dir() else f"folder {out.absolute().parent} does not exist"
        raise InputError.one("--out", "", str(out), why)


def _gives(found: Imported) -> dict[str, bool]:
    return {
        "run": found.trace is not None, "workload": found.workload_csv is not None,
        "cluster": found.cluster_toml is not None,
    }  # fmt: skip


def _write(out: Path, found: Imported) -> str:
    """Write what the name asks for; returns what that is."""
    text = {".csv": found.workload_csv, ".toml": found.cluster_toml}.get(out.suffix)
    kind = {".csv": "workload", ".toml": "cluster"}.get(out.suffix, "run")
    if not _gives(found)[kind]:
        able = [f"a {each} ({_NAMES[each]})" for each, given in _gives(found).items() if given]
        can = f"; it gives {' and '.join(able)}" if able else ""
        raise InputError.one("--out", "", str(out), f"a {found.format} recording of this kind gives no {kind}{can}")
    if text is not None:
        from coordsim.record.files import whole_file

        with whole_file(out) as fresh:
            fresh.write_text(text, encoding="utf-8")
    else:
        from coordsim.record.store import write_run

        assert found.trace is not None
        write_run(out, found.trace, found.facts)
    console.note(f"wrote {out}: a {kind}")
    return kind


_NAMES = {"run": "--out FOLDER", "workload": "--out NAME.csv", "cluster": "--out NAME.toml"}


def _next(source: Path, found: Imported, out: Path | None, made: str | None) -> str:
    if made == "run":
        return f"coordsim report {quote(str(out))}"
    if made == "workload":
        return f"coordsim simulate --workload {quote(str(out))}"
    if made == "cluster":
        return f"coordsim simulate {quote(str(out))} --cluster summit --workload resnet50"
    gives: dict[str, Any] = _gives(found)
    for kind, target in (("run", "run"), ("workload", "workload.csv"), ("cluster", "cluster.toml")):
        if gives[kind]:
            return f"coordsim import {quote(str(source))} --out {target}"
    return "coordsim simulate --explain"
