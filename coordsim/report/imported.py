"""What an import found, on one screen: the figures, and what the source cannot tell."""

from __future__ import annotations

from typing import Any

from coordsim.report import tables, text
from coordsim.report.tables import Page
from coordsim.units import format_rate

_LABEL = 26
_MOST_SENTENCES = 24
_UNITS = ("_s", "bytes", "_Bps")


def import_report(facts: dict[str, Any], title: str, page: Page) -> str:
    """``facts``: the object of ``coordsim import --json``; ``title``: what the source is called."""
    files = len(facts["files"])
    many = f", {text.plural(files, 'file')}" if files != 1 else ""
    lines = [page.bold(line) for line in page.wrap(f"{title}: {facts['format']}{many}", rest="  ")]
    texts = {text for entries in facts["found"].values() for text in _texts(entries)}
    rows = [
        (_words(key), _told(key, value)) for key, value in facts["found"].items()
        if not (isinstance(value, list) and texts.intersection(map(str, value))) and not _texts(value)
    ]  # fmt: skip
    lines += ["", *tables.facts([row for row in rows if row[1]], page, label=_LABEL)]
    lines += _sections(facts["found"], page)
    gives = [name for name, given in facts["gives"].items() if given]
    lines += ["", *tables.facts([("gives", ", ".join(f"a {name}" for name in gives) or "nothing to write")], page,
                                label=_LABEL)]  # fmt: skip
    if facts["unknown"]:
        lines += ["", page.dim("what this source cannot tell")]
        for sentence in tables.reasons(facts["unknown"]):
            lines += [page.dim(line) for line in page.wrap(sentence, "  - ")]
    return "\n".join(lines)


def _texts(value: Any) -> list[str]:
    """The sentences of entries that say themselves in words (``text``), for a section of their own."""
    entries = value if isinstance(value, list) else []
    return [entry["text"] for entry in entries if isinstance(entry, dict) and "text" in entry]


def _sections(found: dict[str, Any], page: Page) -> list[str]:
    """Entries with sentences, one below the other under their key."""
    lines: list[str] = []
    for key, value in found.items():
        if texts := _texts(value):
            lines += ["", page.bold(_words(key))]
            for sentence in texts[:_MOST_SENTENCES]:
                lines += page.wrap(sentence, "  - ")
            if len(texts) > _MOST_SENTENCES:
                lines.append(f"  {len(texts) - _MOST_SENTENCES:,} more in --json")
    return lines


def _words(key: str) -> str:
    return key.removesuffix("_s").removesuffix("_Bps").replace("_s_", "_").replace("_", " ")


def _told(key: str, value: Any) -> str:
    """A figure for people; empty for what has no short form."""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        of = {name: name if name.endswith(_UNITS) else key for name in value}
        words = {name: _words(name) if name.isidentifier() else name for name in value}
        return ", ".join(f"{words[name]} {_told(of[name], each)}" for name, each in value.items())
    if isinstance(value, list):
        if value and isinstance(value[0], list):
            return ""
        more = f"; {len(value) - 4:,} more" if len(value) > 4 else ""
        return "; ".join(_told(key, each) for each in value[:4]) + more
    if isinstance(value, str):
        return value
    if key.endswith("_us"):
        return ""
    if key.endswith("_s"):
        return text.seconds(value)
    if key.endswith("bytes"):
        return text.size(value)
    if key.endswith("_Bps"):
        return format_rate(round(value))
    return text.number(value)
