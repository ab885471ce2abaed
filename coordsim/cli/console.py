"""What goes where: data to stdout, notes to stderr."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any, TextIO

from coordsim.report.tables import Page


def page(stream: TextIO | None = None) -> Page:
    """How wide and how rich the text on ``stream`` (stdout) may be; plain 80 columns when nobody looks."""
    target = stream or sys.stdout
    unicode = "utf" in (getattr(target, "encoding", None) or "").lower()
    if not target.isatty():
        return Page(unicode=unicode)
    width = min(max(shutil.get_terminal_size().columns, 60), 100)
    return Page(width=width, colour=colour_wanted(), unicode=unicode)


def colour_wanted() -> bool:
    """The convention of https://no-color.org, and terminals that cannot."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def data(text: str) -> None:
    """The answer."""
    sys.stdout.write(text + "\n")


def data_json(value: dict[str, Any]) -> None:
    """The answer as one JSON object; a number that JSON cannot hold is a bug."""
    data(json.dumps(value, indent=2, allow_nan=False))


def note(text: str) -> None:
    """Something worth knowing beside the answer."""
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)


def error(text: str) -> None:
    """One mistake, on one line."""
    note("error: " + " ".join(text.splitlines()))


def next_command(command: str) -> None:
    """The last line of every verb: what to type now."""
    note(f"next: {command}")
