"""What an import found, on one screen: the figures, and what the source cannot tell."""

from __future__ import annotations

from typing import Any

from coordsim.report import tables, text
from coordsim.report.tables import Page
from coordsim.units import format_rate

_LABEL = 26
_MOST_TABLES = 40
_MOST_SENTENCES = 24
_UNITS = ("_s", "bytes", "_Bps")
_TABLE = "_table"
_MOST_ROWS = 12


def import_report(facts: dict[str, Any], title: str, page: Page) -> str:
    """``facts``: the object of ``coordsim import --json``; ``title``: what the source is called."""
    facts, title = text.printable_all(facts), text.printable(title)  # a file's names may hold anything
    files = len(facts["files"])
    many = f", {text.plural(files, 'file')}" if files != 1 else ""
    lines = [page.bold(line) for line in page.wrap(f"{title}: {facts['format']}{many}", rest="  ")]
    found = facts["found"]
    lines += ["", *(_table_lines(found["tables"], page) if "tables" in found else _figures(found, page))]
    gives = [name for name, given in facts["gives"].items() if given]
    lines += ["", *tables.facts([("gives", ", ".join(f"a {name}" for name in gives) or "nothing to write")], page,
                                label=_LABEL)]  # fmt: skip
    if facts["unknown"]:
        lines += ["", page.dim("what this source cannot tell")]
        for sentence in tables.reasons(facts["unknown"]):
            lines += [page.dim(line) for line in page.wrap(sentence, "  - ")]
    if facts["not_read"]:
        lines += ["", page.dim("what was not read")]
        for what, count in facts["not_read"].items():
            sentence = f"{what}: {_told('', count)}"
            lines += [page.dim(line) for line in page.wrap(sentence, "  - ")]
    return "\n".join(lines)


def _table_lines(found: list[dict[str, Any]], page: Page) -> list[str]:
    """One paragraph for each of a benchmark's tables."""
    lines = [text.plural(len(found), "table")]
    file = None
    for table in found[:_MOST_TABLES]:
        if table["file"] != file and len({other["file"] for other in found}) > 1:
            file = table["file"]
            lines += page.wrap(file, rest="  ")
        what = " ".join(filter(None, (table["collective"] or table["algorithm"] or "unknown collective", table["of"])))
        ranks = "unknown ranks" if table["ranks"] is None else text.plural(table["ranks"], "rank")
        sizes = " to ".join(dict.fromkeys(text.size(table[end]["bytes"]) for end in ("smallest", "largest")))
        rate = table["bus_bandwidth_Bps"]
        bus = "bus bandwidth not known" if rate is None else f"bus {format_rate(round(rate))}"
        wrong = ", RESULTS ARE WRONG" if table["rows_with_wrong_results"] or table["values_out_of_bounds"] else ""
        by = f", printed by {table['printed_by']}" if table["printed_by"] else ""
        sentence = f"{table['number']:>3}  {what}, {ranks}, {sizes}, {bus}{wrong} (line {table['line']}{by})"
        lines += page.wrap(sentence, rest="     ")
    if len(found) > _MOST_TABLES:
        lines.append(f"     {len(found) - _MOST_TABLES:,} more; --json lists them all")
    return lines


def _figures(found: dict[str, Any], page: Page) -> list[str]:
    """Values in a line each, then tables, then sentences; a key whose values are told in sentences has no line."""
    texts = {sentence for value in found.values() for sentence in _texts(value)}
    rows = []
    for key, value in found.items():
        in_sentences = isinstance(value, list) and (_texts(value) or texts.intersection(map(str, value)))
        if not key.endswith(_TABLE) and not in_sentences and (words := _told(key, value)):
            rows.append((_words(key), words))
    lines = tables.facts(rows, page, label=_LABEL)
    for key, value in found.items():
        if key.endswith(_TABLE) and value:
            lines += ["", *_table(_words(key.removesuffix(_TABLE)), value, page)]
    return [*lines, *_sections(found, page)]


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


def _table(name: str, rows: list[dict[str, Any]], page: Page) -> list[str]:
    """Rows with the same keys, under their names; columns at the right that do not fit are left out, which is said."""
    keys = [key for key in rows[0] if any(row[key] is not None for row in rows)]
    cells = [[_words(key) for key in keys]]
    cells += [[_told(key, row[key]) if row[key] is not None else "-" for key in keys] for row in rows[:_MOST_ROWS]]
    words = [any(isinstance(row[key], str) for row in rows) for key in keys]
    widths = [max(len(line[place]) for line in cells) + 2 for place in range(len(keys))]
    fitting = len(keys)
    while fitting > 1 and sum(widths[:fitting]) > page.width:
        fitting -= 1
    align = "".join("l" if word else "r" for word in words[:fitting])
    lines = [page.bold(name), *tables.columns([line[:fitting] for line in cells], align, indent=2)]
    left = [f"{len(rows) - _MOST_ROWS:,} more rows"] if len(rows) > _MOST_ROWS else []
    left += [f"columns {', '.join(cells[0][fitting:])}"] if fitting < len(keys) else []
    more = page.wrap("; ".join(left), "  with --json: ", "    ") if left else []
    return [line[: page.width] for line in lines] + [page.dim(line) for line in more]


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
    if "bytes" in key.split("_"):
        return text.size(value)
    if key.endswith("_Bps"):
        return format_rate(round(value))
    return text.number(value)
