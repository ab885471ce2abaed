"""What goes where: data to stdout, notes to stderr."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any, TextIO

from coordsim.report.tables import Page
from coordsim.report.text import printable_page


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
    """The answer, without anything that would steer a terminal but the page's own colours."""
    sys.stdout.write(printable_page(text, colour=page().colour) + "\n")


def data_json(value: dict[str, Any]) -> None:
    """The answer as one JSON object; a number that JSON cannot hold is a bug."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def note(text: str) -> None:
    """Something worth knowing beside the answer."""
    sys.stdout.flush()
    print(printable_page(text), file=sys.stderr, flush=True)


def error(text: str) -> None:
    """One mistake, on one line."""
    note("error: " + " ".join(text.splitlines()))


def next_command(command: str) -> None:
    """The last line of every verb: what to type now."""
    note(f"next: {command}")
