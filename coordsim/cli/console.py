"""Output of the command line: data to stdout, notes to stderr."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any, TextIO

from coordsim.report.tables import Page
from coordsim.report.text import printable_page


def page(stream: TextIO | None = None) -> Page:
    """Return the width and the features of the text on ``stream`` (stdout).

    A stream that is no terminal gets 80 plain columns.
    """
    target = stream or sys.stdout
    unicode = "utf" in (getattr(target, "encoding", None) or "").lower()
    if not target.isatty():
        return Page(unicode=unicode)
    width = min(max(shutil.get_terminal_size().columns, 60), 100)
    return Page(width=width, colour=colour_wanted(), unicode=unicode)


def colour_wanted() -> bool:
    """Return whether colour is wanted, by https://no-color.org and the terminal's type."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def data(text: str) -> None:
    """Write the answer; control characters are removed except the page's own colours."""
    sys.stdout.write(printable_page(text, colour=page().colour) + "\n")


def data_json(value: dict[str, Any]) -> None:
    """Write the answer as one JSON object. A number that JSON cannot hold raises ValueError, since it is a bug."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def note(text: str) -> None:
    """Write a remark beside the answer."""
    sys.stdout.flush()
    print(printable_page(text), file=sys.stderr, flush=True)


def error(text: str) -> None:
    """Write one error, on one line."""
    note("error: " + " ".join(text.splitlines()))


def next_command(command: str) -> None:
    """Write a useful next command, which is the last line of every verb."""
    note(f"next: {command}")
