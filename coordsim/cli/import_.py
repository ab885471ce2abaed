"""``coordsim import``: reads recordings of other tools, as a run or as a part of a scenario."""

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
        Path,
        typer.Argument(metavar="FILE_OR_DIR", help="The source: a file (or .gz), or one job's folder, zip or tar."),
    ],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="F",
            help="horovod, kineto, flight-recorder, chakra, ddp-logging, nccl-tests, nccl-inspector, nccl-debug, "
            "gloo-benchmark; auto: by content.",
        ),
    ] = _AUTO,
    out: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="A run directory, or a .csv or .toml for a scenario.", show_default=False),
    ] = None,
    table: Annotated[
        int | None,
        typer.Option(metavar="N", help="Which of a benchmark's tables --out writes.", show_default=False),
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
        imported = import_source(source, form)
    if table is not None and (out is None or out.suffix != ".toml"):
        raise InputError.one("--table", "", table, "chooses what --out NAME.toml writes; give that, too")
    made = _write(out, imported, table) if out is not None else None
    facts = {
        "schema": SCHEMA, "format": imported.format, "files": imported.files, "found": imported.summary,
        "unknown": imported.unknown, "not_read": imported.not_read, "gives": _gives(imported),
        "out": str(out) if made else None,
    }  # fmt: skip
    if as_json:
        console.data_json(facts)
    else:
        from coordsim.report.imported import import_report

        console.data(import_report(facts, source.name or str(source), console.page()))
    console.next_command(_next(source, imported, out, made))


def _check(out: Path) -> None:
    """Check before the source is read that ``out`` can be written, since reading may take minutes."""
    if out.suffix not in (".csv", ".toml"):
        from coordsim.record.store import check_target

        check_target(out)
    elif out.is_dir() or not out.absolute().parent.is_dir():
        why = f"{out} is a folder" if out.is_dir() else f"folder {out.absolute().parent} does not exist"
        raise InputError.one("--out", "", str(out), why)


def _gives(imported: Imported) -> dict[str, bool]:
    return {
        "run": imported.trace is not None, "workload": imported.workload_csv is not None,
        "cluster": bool(imported.clusters),
    }  # fmt: skip


def _chosen_cluster(imported: Imported, table: int | None) -> str:
    """Return the cluster figures that ``--table`` names, or the only ones. Raises InputError with the choices."""
    choices = [f"{number}: {figures.name}" for number, figures in imported.clusters.items()]
    more = f"; {len(choices) - _MOST_CHOICES:,} more" if len(choices) > _MOST_CHOICES else ""
    listed = "; ".join(choices[:_MOST_CHOICES]) + more
    if table is None and len(choices) > 1:
        message = f"{len(choices)} tables give figures of a cluster; choose one with --table N ({listed})"
        raise InputError.one("--out", "", None, message)
    number = table if table is not None else next(iter(imported.clusters))
    if number not in imported.clusters:
        message = f"table {number} gives no figures of a cluster; these do ({listed})"
        raise InputError.one("--table", "", number, message)
    return imported.clusters[number].toml


def _write(out: Path, imported: Imported, table: int | None) -> str:
    """Write the kind of output that the name ``out`` asks for, and return this kind."""
    kind = {".csv": "workload", ".toml": "cluster"}.get(out.suffix, "run")
    if not _gives(imported)[kind]:
        able = [f"a {each} ({_NAMES[each]})" for each, given in _gives(imported).items() if given]
        can = f"; it gives {' and '.join(able)}" if able else ""
        raise InputError.one("--out", "", str(out), f"a {imported.format} recording of this kind gives no {kind}{can}")
    if kind != "run":
        text = imported.workload_csv if kind == "workload" else _chosen_cluster(imported, table)
        assert text is not None
        from coordsim.record.files import whole_file

        with whole_file(out) as fresh:
            fresh.write_text(text, encoding="utf-8")
    else:
        from coordsim.record.store import write_run

        assert imported.trace is not None
        assert imported.facts is not None
        write_run(out, imported.trace, imported.facts)
    console.note(f"wrote {out}: a {kind}")
    return kind


_MOST_CHOICES = 8
_NAMES = {"run": "--out FOLDER", "workload": "--out NAME.csv", "cluster": "--out NAME.toml"}


def _next(source: Path, imported: Imported, out: Path | None, made: str | None) -> str:
    if made == "run":
        return f"coordsim report {quote(str(out))}"
    if made == "workload":
        return f"coordsim simulate --workload {quote(str(out))}"
    if made == "cluster":
        return f"coordsim simulate {quote(str(out))} --cluster summit --workload resnet50"
    gives: dict[str, Any] = _gives(imported)
    for kind, target in (("run", "run"), ("workload", "workload.csv"), ("cluster", "cluster.toml")):
        if gives[kind]:
            several = kind == "cluster" and len(imported.clusters) > 1
            choice = f" --table {next(iter(imported.clusters))}" if several else ""
            return f"coordsim import {quote(str(source))} --out {target}{choice}"
    return "coordsim simulate --explain"
