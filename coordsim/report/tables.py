"""Text on a page: aligned tables, bars, wrapped paragraphs. Never wider than the page."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_GLUED = re.compile(
    r"(?<=\d) (?=(?:%|ns|us|ms|s|B|[KMGT]iB|kWh|GPUs?|[kMGTPE]?FLOP(?:/s)?)(?:[^\w]|$))|(?<=--set) (?=\S)"
)
"""Spaces at which no line may break: between a number and its unit."""
LABEL = 14
"""Cells of a row's label, beside which the screens of all verbs put their text."""
_JOINT = "\x00"
_EIGHTHS = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True)
class Page:
    """Where text goes. The default is what a pipe or a file gets."""

    width: int = 80
    colour: bool = False
    unicode: bool = True

    def bold(self, text: str) -> str:
        return f"\x1b[1m{text}\x1b[0m" if self.colour else text

    def dim(self, text: str) -> str:
        return f"\x1b[2m{text}\x1b[0m" if self.colour else text

    def wrap(self, text: str, first: str = "", rest: str | None = None) -> list[str]:
        """``text`` in lines that fit; ``first`` opens the first line, ``rest`` the others (default: as wide)."""
        hanging = " " * len(first) if rest is None else rest
        lines = textwrap.wrap(
            _GLUED.sub(_JOINT, text),
            self.width,
            initial_indent=first,
            subsequent_indent=hanging,
            break_on_hyphens=False,
        )
        return [line.replace(_JOINT, " ") for line in lines] or [first.rstrip()]

    def bar(self, share: float, cells: int) -> str:
        """A horizontal bar, ``cells`` wide for a share of 1; something to see for anything above zero."""
        filled = min(max(share, 0.0), 1.0) * cells
        if not self.unicode:
            return "#" * (max(round(filled), 1) if share > 0 else 0)
        eighths = max(round(filled * 8), 1) if share > 0 else 0
        return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def columns(rows: Sequence[Sequence[str]], align: str, gap: int = 2, indent: int = 0) -> list[str]:
    """Rows of cells as aligned lines; ``align`` has one of ``l`` and ``r`` for each column."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(align))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(row, widths, align, strict=True)
        ]
        lines.append((" " * indent + (" " * gap).join(cells)).rstrip())
    return lines


def facts(rows: Sequence[tuple[str, str]], page: Page, indent: int = 2, label: int = 0) -> list[str]:
    """``name  value`` lines, the values wrapped under each other."""
    width = label or max(len(name) for name, _ in rows) + 2
    lines = []
    for name, value in rows:
        lines += page.wrap(value, " " * indent + name.ljust(width))
    return lines


def reasons(why: Mapping[str, str]) -> list[str]:
    """``this, that: reason``, what shares a reason together, in the order of their first."""
    found: dict[str, list[str]] = {}
    for what, reason in why.items():
        found.setdefault(reason, []).append(what.replace("_", " "))
    return [f"{', '.join(names)}: {reason}" for reason, names in found.items()]
