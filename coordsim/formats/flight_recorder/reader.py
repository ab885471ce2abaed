"""Reads one rank's dump, a pickle of plain values or JSON."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern
from typing import Any, NoReturn

from coordsim.errors import InputError
from coordsim.formats.shared.json_text import JsonText, members
from coordsim.formats.shared.small_files import first_bytes, small_bytes
from coordsim.formats.shared.torch_types import TYPES

EXPECTED = "expected a dump of PyTorch's Flight Recorder (entries, pg_config, pg_status)"
LARGEST_FILE = 1 << 27
MOST_OPERATIONS = 1 << 23
"""Of a pickle: each may make an object."""
MOST_ENTRIES = 1 << 20
"""Of all dumps together, some 400 bytes each."""
_RANK = re.compile(r"(?:rank[_-]?|_|-)([0-9]{1,7})(?:\.(?:pickle|pkl|json|bin|gz))*$")
_RANKS = re.compile(r"\[\s*(?:[0-9]{1,7}(?:\s*,\s*[0-9]{1,7})*)?\s*\]")
_PLAIN = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT",
    "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "EMPTY_LIST",
    "EMPTY_TUPLE", "EMPTY_DICT", "APPEND", "APPENDS", "LIST", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "DICT", "SETITEM",
    "SETITEMS", "GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE",
})  # fmt: skip
"""Operations of a pickle that build containers and plain values; any other one calls something."""
_HEAD = 4096
_LONGEST_NUMBER = 128
"""Bytes of an integer: no counter or time is longer."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One collective; times in ns since 1970, None where they were not recorded."""

    group: str
    sequence: int
    name: str
    state: str
    nbytes: int | None
    created_ns: int | None
    started_ns: int | None
    completed_ns: int | None
    p2p: bool


@dataclass
class Dump:
    path: Path
    version: str = ""
    rank: int | None = None
    """From the file's name: the dump itself does not say."""
    entries: list[Entry] = field(default_factory=list)
    groups: dict[str, list[int]] = field(default_factory=dict)
    """Process group -> ranks."""
    status: dict[str, dict[str, int]] = field(default_factory=dict)
    """Process group -> numbers of the last collectives enqueued, started, completed."""
    lost: str | None = None


def read_dump(path: Path, room: int = MOST_ENTRIES) -> Dump:
    """Raises InputError, with the file and what is wrong, for anything that is no dump.

    ``room``: the most entries of a dump in JSON.
    """
    dump = Dump(path)
    match = _RANK.search(path.name)
    dump.rank = int(match[1]) if match else None
    if first_bytes(path, _HEAD)[:1] == b"\x80":
        data, cut = small_bytes(path, LARGEST_FILE, EXPECTED)
        if cut:
            _wrong(path, "", None, f"no whole pickle: {cut}; {EXPECTED}")
        found = _unpickled(path, data)
        if not isinstance(found, dict) or not isinstance(found.get("entries"), list):
            _wrong(path, "entries", None, f"has no list of entries; {EXPECTED}")
        dump.entries = [_entry(path, index, entry) for index, entry in enumerate(found["entries"])]
    else:
        found = _json(dump, room)
    dump.version = _short(found.get("version", ""))[:20]
    _groups(dump, found)
    return dump


class _Plain(pickle.Unpickler):
    """Never imports or calls anything, whatever slipped through."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"refers to {module}.{name}")

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError("refers to an object outside the file")


def _unpickled(path: Path, data: bytes) -> Any:
    """The plain values in ``data``. Every operation is looked at before the first is carried out."""
    try:
        for number, (operation, argument, at) in enumerate(pickletools.genops(data)):
            if number == MOST_OPERATIONS:
                _wrong(path, "", None, f"has more than {MOST_OPERATIONS:,} operations")
            if operation.name not in _PLAIN:
                _wrong(path, "", operation.name, f"holds more than plain values: {operation.name} at byte {at}")
            if isinstance(argument, int) and argument.bit_length() > 8 * _LONGEST_NUMBER:
                _wrong(path, "", None, f"holds a number of absurd length at byte {at}")
        return _Plain(io.BytesIO(data)).load()
    except InputError:
        raise
    except Exception as error:  # a damaged pickle raises almost anything
        _wrong(path, "", None, f"no whole pickle: {str(error)[:120]}; {EXPECTED}")


def _json(dump: Dump, room: int) -> dict[str, Any]:
    text = JsonText(dump.path, EXPECTED, "entry")
    found: dict[str, Any] = {}
    listed = False
    for key, value in members(text, frozenset({"entries"})):
        if key in ("version", "pg_config", "pg_status"):
            found[key] = value
        elif key == "entries":
            listed = True
            if len(dump.entries) == room:
                _wrong(dump.path, "entries", None, f"is beyond {MOST_ENTRIES:,} entries of the job; {EXPECTED}")
            dump.entries.append(_entry(dump.path, len(dump.entries), value))
    if not listed:
        _wrong(dump.path, "entries", None, f"has no list of entries; {EXPECTED}")
    dump.lost = text.lost
    return found


def _entry(path: Path, index: int, entry: Any) -> Entry:
    where = f"entries[{index}]"
    if not isinstance(entry, dict):
        _wrong(path, where, entry, "is no object")
    group = entry.get("process_group")
    label = _short(group[0] if isinstance(group, list | tuple) and group else entry.get("pg_id", ""))
    name, state = entry.get("profiling_name"), entry.get("state")
    if not isinstance(name, str) or not isinstance(state, str):
        _wrong(path, where, name, 'has no text as "profiling_name" and "state"')
    sequence = entry.get("collective_seq_id", entry.get("seq_id"))
    if type(sequence) is not int or not 0 <= sequence < 1 << 62:
        _wrong(path, f"{where}.collective_seq_id", sequence, "is no number of a collective")
    return Entry(
        intern(label), sequence, intern(name[:80]), intern(state[:40]), _nbytes(entry),
        _time(path, where, entry, "time_created_ns"),
        _time(path, where, entry, "time_discovered_started_ns"),
        _time(path, where, entry, "time_discovered_completed_ns"), entry.get("is_p2p") is True,
    )  # fmt: skip


def _time(path: Path, where: str, entry: dict[str, Any], key: str) -> int | None:
    """JSON dumps write 0 for a time that was not recorded."""
    value = entry.get(key)
    if value is None or value == 0:
        return None
    if type(value) is not int or not 0 < value < 1 << 62:
        _wrong(path, f"{where}.{key}", value, "is no time in ns")
    return value


def _nbytes(entry: dict[str, Any]) -> int | None:
    sizes, types = entry.get("input_sizes"), entry.get("input_dtypes")
    if not isinstance(sizes, list | tuple) or not isinstance(types, list | tuple) or len(sizes) != len(types):
        return None
    total = 0
    for shape, kind in zip(sizes, types, strict=True):
        size = TYPES.get(_short(kind).lower())
        if size is None or not isinstance(shape, list | tuple) or len(shape) > 32:
            return None
        numel = 1
        for extent in shape:
            if type(extent) is not int or not 0 <= extent < 1 << 50:
                return None
            numel *= extent
        total += numel * size[1]
        if total >= 1 << 50:
            return None
    return total


def _groups(dump: Dump, found: dict[str, Any]) -> None:
    config, status = found.get("pg_config", {}), found.get("pg_status", {})
    for key, value in (("pg_config", config), ("pg_status", status)):
        if not isinstance(value, dict) or not all(isinstance(each, dict) for each in value.values()):
            _wrong(dump.path, key, value, "is no object of process groups")
    for name, each in config.items():
        ranks = each.get("ranks")
        if isinstance(ranks, str) and _RANKS.fullmatch(ranks):
            dump.groups[_short(name)] = [int(word) for word in re.findall(r"[0-9]+", ranks)]
    for name, each in status.items():
        numbers = {}
        for key, value in each.items():
            if re.fullmatch(r"-?[0-9]{1,18}", _short(value)):
                numbers[_short(key)] = int(value)
        dump.status[_short(name)] = numbers


def _short(value: Any) -> str:
    """A plain value as text. Not a container: a small pickle can hold one that is endless when written out."""
    plain = isinstance(value, str | int | float) or value is None
    return str(value)[:80] if plain else type(value).__name__


def _wrong(path: Path, key: str, value: Any, message: str) -> NoReturn:
    raise InputError.one(str(path), key, _short(value), message)
