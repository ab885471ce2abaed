"""What the site takes from elsewhere while it is built: the commands, the public Python names, the list of changes.

A page asks for it by a line ``<!-- generated: WHAT -->``: ``commands``, ``changes`` or ``names of MODULE``. The
text that takes its place is Markdown, so that its headings stand in the page's table of contents.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from sphinx.ext.autodoc.mock import mock

ROOT = Path(__file__).parents[2]
MARKER = re.compile(r"^<!-- generated: (commands|changes|names of [\w.]+) -->$", re.MULTILINE)


def commands() -> str:
    """A heading, the usage and a table of parameters for each command of ``coordsim``, from its own parser."""
    from coordsim.cli import app

    root = typer.main.get_command(app)
    lines: list[str] = []
    for name in root.list_commands(root.context_class(root)):  # type: ignore[attr-defined]
        command = root.commands[name]  # type: ignore[attr-defined]
        lines += _command(command, f"coordsim {name}")
        for inner, below in getattr(command, "commands", {}).items():
            lines += _command(below, f"coordsim {name} {inner}")
    return "\n".join(lines)


def _command(command: Any, words: str) -> Iterator[str]:
    usage = command.get_usage(command.context_class(command, info_name=words)).removeprefix("Usage: ")
    yield from (f"## {words}", "", command.help or "", "", "```text", usage, "```", "")
    if command.params:
        yield from ("| parameter | what it is | default |", "|---|---|---|")
        yield from (_row(parameter) for parameter in command.params)
        yield ""


def _row(parameter: Any) -> str:
    words = [parameter.metavar] if parameter.param_type_name == "argument" else [parameter.opts[0], parameter.metavar]
    default = parameter.default
    shown = "" if default is None or default is False or callable(default) else f"`{default}`"
    cells = (f"`{' '.join(filter(None, words))}`", parameter.help or "", shown)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def names(module: str, absent: list[str]) -> str:
    """An autodoc directive for each public name of ``module``, in the order of its ``__all__``.

    ``absent``: packages that are not installed and whose names autodoc makes up (``autodoc_mock_imports``).
    """
    home = import_module(module)
    with mock(absent):
        public = [name for name in home.__all__ if not name.startswith("__")]
        blocks = [_directive(module, name, getattr(home, name)) for name in public]
    return "```{eval-rst}\n" + "\n".join(blocks) + "```"


def _directive(module: str, name: str, value: object) -> str:
    if inspect.isclass(value):
        kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
    else:
        kind = "autofunction" if callable(value) else "autodata"
    return f".. {kind}:: {module}.{name}\n"


def changes() -> str:
    """The CHANGELOG without its title, its links as seen from ``docs/``."""
    return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("\n")[2].replace("](docs/", "](")


def generated(what: str, absent: list[str]) -> str:
    """The text that a marker asks for."""
    if what.startswith("names of "):
        return names(what.removeprefix("names of "), absent)
    return commands() if what == "commands" else changes()


def fill(app: Any, docname: str, source: list[str]) -> None:
    """Put generated text in the place of each marker of a page."""
    source[0] = MARKER.sub(lambda marker: generated(marker[1], app.config.autodoc_mock_imports), source[0])


def shorten(app: Any, what: str, name: str, value: object, *rest: object) -> tuple[str, str | None] | None:
    """A dataclass is shown with the names of its fields: their types stand beside each field below."""
    if what in ("class", "exception") and is_dataclass(value):
        return f"({', '.join(field.name for field in fields(value) if field.init)})", None
    return None


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", fill)
    app.connect("autodoc-process-signature", shorten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
