"""Reads one rank's dump, a pickle of plain values or JSON, of any version that PyTorch has written since 2.2."""

from __future__ import annotations

import io
import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple, NoReturn

from coordsim.errors import InputError
from coordsim.formats.flight_recorder.opcodes import NotPlainError, check_operations
from coordsim.formats.shared.json_text import JsonText, members
from coordsim.formats.shared.small_files import first_bytes, small_bytes
from coordsim.formats.shared.torch_types import TYPES

EXPECTED = "expected a dump of PyTorch's Flight Recorder (entries, pg_config, pg_status)"
LARGEST_FILE = 1 << 27
MOST_ENTRIES = 1 << 22
"""Largest number of entries of all dumps together."""
MOST_TENSORS = 1 << 16
"""Largest number of tensors of one call."""
KNOWN_VERSIONS = frozenset(
    {f"1.{minor}" for minor in range(5)} | {f"2.{minor}" for minor in range(11)} | {""}
)  # fmt: skip
"""Versions of torch 2.2 (a list without version), 2.3 (1.x), 2.4 (2.1) to 2.13 (2.10)."""

_RANK_WORD = re.compile(r"(?<![a-zA-Z])rank[_-]?([0-9]{1,7})(?![0-9])", re.IGNORECASE)
_RANK_END = re.compile(r"(?:^|[_.-])([0-9]{1,7})(?:\.(?:pickle|pkl|json|bin|gz|dump|trace))*$", re.IGNORECASE)
_EMPTY = re.compile(rb'"entries"\s*:\s*\[\s*\]')
_RANKS = re.compile(r"\[\s*(?:[0-9]{1,7}(?:\s*,\s*[0-9]{1,7})*)?\s*\]")
_PEERS = re.compile(r"(send|recv)\s+([0-9]{1,7})\s*(->|<-)\s*([0-9]{1,7})")
_CLOSING = re.compile(r"coalesced|[A-Z_]+_coalesced")
"""NCCL closes a batch with the name of its kind in capitals; all_gather_into_tensor_coalesced is a call of its own."""
_HEAD = 4096
_MOST = 1 << 62


class Tensors(NamedTuple):
    """Numbers of values and types of a call's tensors."""

    inputs: tuple[int, ...] | None
    """Number of values in each tensor; None if the sizes are not recorded."""
    outputs: tuple[int, ...] | None
    input_types: tuple[str, ...]
    output_types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the buffer; times in ns since 1970, None where they were not recorded."""

    group: str
    """The process group's name, unique in one rank's dump."""
    description: str
    sequence: int
    """Number of the collective in its group, from 1; every record of a coalesced call has the same."""
    p2p_sequence: int | None
    record: int | None
    """Number of the record in its rank's buffer, from 0."""
    status: str
    """Key of the group in ``pg_status``."""
    name: str
    """As recorded, for instance ``nccl:all_reduce``."""
    operation: str
    """Name without the backend."""
    peers: tuple[int, int] | None
    """For a send or receive: ranks of source and destination within the group."""
    state: str
    retired: bool
    tensors: Tensors
    nbytes: int | None
    created_ns: int | None
    started_ns: int | None
    completed_ns: int | None
    timeout_ns: int | None
    p2p: bool
    """Whether it is a send or receive, or closes a batch of them."""
    members: tuple[int, ...] | None
    """The group's ranks, if the record itself has them."""

    @property
    def done(self) -> bool:
        """Whether the call ended well.

        Gloo leaves the state at "scheduled" and marks the end by retiring the record. Aborting a communicator ends
        calls that were stuck; the recorder sees those end after their timeout.
        """
        if self.state == "completed":
            late = self.completed_ns is not None and self.created_ns is not None and self.timeout_ns is not None
            return not (late and self.completed_ns - self.created_ns >= self.timeout_ns)  # type: ignore[operator]
        return self.retired and self.state == "scheduled" and self.name.startswith("gloo:")

    @property
    def closes_batch(self) -> bool:
        """Whether the record stands for a whole coalesced call and has no tensors of its own."""
        return _CLOSING.fullmatch(self.operation) is not None


class Group(NamedTuple):
    """One process group as a dump lists it."""

    description: str
    ranks: tuple[int, ...] | None
    """None if the dump does not state them; gloo writes "[]" then."""


@dataclass
class Dump:
    path: Path
    version: str = ""
    rank: int | None = None
    """Rank from the file's name: PyTorch's dumps do not state it, those of other tools may."""
    entries: list[Entry] = field(default_factory=list)
    groups: dict[str, Group] = field(default_factory=dict)
    """Groups by name."""
    status: dict[str, dict[str, int]] = field(default_factory=dict)
    """Process group -> numbers of the last collectives enqueued, started, completed."""
    shared_numbers: bool = False
    """Whether one counter numbers collectives and sends alike (before torch 2.4)."""
    lost: str | None = None

    @property
    def whole(self) -> bool:
        """Whether the buffer still has the rank's first call, and every one since.

        Without entries: whether no group has a state either, since a dump of open calls only leaves out those that
        ended.
        """
        if not self.entries:
            return not self.status and not self.lost
        return not self.lost and all(entry.record == place for place, entry in enumerate(self.entries))

    @property
    def version_number(self) -> tuple[int, int]:
        """Major and minor number; for a version that is no two numbers, the newest known."""
        match = re.fullmatch(r"([0-9]{1,4})\.([0-9]{1,4})", self.version)
        return (int(match[1]), int(match[2])) if match else ((1, 0) if self.shared_numbers else (2, 10))


def read_dump(path: Path, room: int = MOST_ENTRIES) -> Dump:
    """Read a dump. Raises InputError, with the file and the fault, for anything that is no dump.

    ``room`` is the largest number of entries allowed.
    """
    dump = Dump(path)
    dump.rank = rank_of(path.name)
    values = _unpickled(dump, room) if first_bytes(path, _HEAD)[:1] == b"\x80" else _json(dump, room)
    dump.version = _short(values.get("version", ""))[:20]
    own = values.get("rank")
    dump.rank = own if type(own) is int and 0 <= own < 10**7 else dump.rank
    _groups(dump, values)
    return dump


def rank_of(name: str) -> int | None:
    """Return the rank in a file's name: behind the word rank, else the number at its end; None if there is none."""
    words = set(_RANK_WORD.findall(name))
    if len(words) == 1:
        return int(words.pop())
    match = _RANK_END.search(name)
    return int(match[1]) if match else None


class _Plain(pickle.Unpickler):
    """An unpickler that never imports or calls anything, even if a check has missed an operation."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"refers to {module}.{name}")

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError("refers to an object outside the file")


def _unpickled(dump: Dump, room: int) -> dict[str, Any]:
    """Return the dump's values without its entries, which are replaced by their places."""
    path = dump.path
    data, cut = small_bytes(path, LARGEST_FILE, EXPECTED)
    if cut:
        _wrong(path, "", None, f"no whole pickle: {cut}; {EXPECTED}")
    try:
        check_operations(data)
        values = _Plain(io.BytesIO(data)).load()
    except NotPlainError as error:
        _wrong(path, "", error.operation or None, f"{error}; {EXPECTED}")
    except Exception as error:  # a damaged pickle raises almost anything
        _wrong(path, "", None, f"no whole pickle: {str(error)[:120]}; {EXPECTED}")
    if isinstance(values, list):  # torch 2.2
        values = {"entries": values}
    if not isinstance(values, dict) or not _is_dump(values) or not isinstance(values.get("entries", []), list):
        _wrong(path, "entries", None, f"has no list of entries; {EXPECTED}")
    entries = values.pop("entries", [])
    if len(entries) > room:
        _too_many(path)
    dump.entries = [_entry(dump, index, entry) for index, entry in enumerate(entries)]
    return values


def _is_dump(values: dict[str, Any]) -> bool:
    """Entries are left out where there are none, or where only the state of the groups was asked for."""
    return "entries" in values or ("version" in values and "pg_config" in values)


def _json(dump: Dump, room: int) -> dict[str, Any]:
    text = JsonText(dump.path, EXPECTED, "entry")
    values: dict[str, Any] = {}
    for key, value in members(text, frozenset({"entries"})):
        if key in ("version", "pg_config", "pg_status", "rank"):
            values[key] = value
        elif key == "entries":
            values[key] = None
            if len(dump.entries) == room:
                _too_many(dump.path)
            dump.entries.append(_entry(dump, len(dump.entries), value))
    dump.lost = text.lost
    # an empty list has no element that would have set the key
    if not _is_dump(values) and not _EMPTY.search(first_bytes(dump.path, _HEAD)):
        _wrong(dump.path, "entries", None, f"has no list of entries; {EXPECTED}")
    return values


def _too_many(path: Path) -> NoReturn:
    _wrong(path, "entries", None, f"is beyond {MOST_ENTRIES:,} entries of the job; {EXPECTED}")


def _entry(dump: Dump, index: int, entry: Any) -> Entry:
    path, where = dump.path, f"entries[{index}]"
    if not isinstance(entry, dict):
        _wrong(path, where, entry, "is no object")
    group = entry.get("process_group")
    status = _short(entry.get("pg_id", ""))
    pair = [_short(word) for word in group[:2]] if isinstance(group, list | tuple) and group else [status]
    name, state = entry.get("profiling_name"), entry.get("state")
    if not isinstance(name, str) or not isinstance(state, str):
        _wrong(path, where, name, 'has no text as "profiling_name" and "state"')
    key = "collective_seq_id" if "collective_seq_id" in entry else "seq_id"
    dump.shared_numbers |= key == "seq_id"
    sequence = _number(entry.get(key))
    if sequence is None:
        _wrong(path, f"{where}.{key}", entry.get(key), "is no number of a collective")
    name = intern(printable(name[:80]))
    operation = intern(name.rpartition(":")[2])
    match = _PEERS.fullmatch(operation)
    tensors, nbytes = _tensors(entry)
    micros = _time(path, where, entry, "time_created_us")
    timeout = _number(entry.get("timeout_ms"))
    return Entry(
        intern(pair[0]), intern(pair[1] if len(pair) > 1 else ""), sequence,
        _number(entry.get("p2p_seq_id")), _number(entry.get("record_id")), intern(status),
        name, intern(match[1]) if match else operation, _peers(match), intern(printable(state[:40])),
        entry.get("retired") is True, tensors, nbytes,
        _time(path, where, entry, "time_created_ns") if micros is None else micros * 1000,
        _time(path, where, entry, "time_discovered_started_ns"),
        _time(path, where, entry, "time_discovered_completed_ns"),
        timeout * 1_000_000 if timeout else None,
        entry.get("is_p2p") is True or operation.partition(" ")[0] in ("send", "recv"),
        _ranks(entry.get("process_group_ranks")),
    )  # fmt: skip


def _peers(match: re.Match[str] | None) -> tuple[int, int] | None:
    if match is None:
        return None
    first, second = int(match[2]), int(match[4])
    return (first, second) if match[3] == "->" else (second, first)


def _number(value: Any) -> int | None:
    """A counter, as a number or, as PyTorch's own tests write it, as text; None for anything else."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        return int(value)
    return value if type(value) is int and 0 <= value < _MOST else None


def _time(path: Path, where: str, entry: dict[str, Any], key: str) -> int | None:
    """JSON dumps write 0 for a time that was not recorded."""
    value = entry.get(key)
    if value is None or value == 0:
        return None
    if type(value) is not int or not 0 < value < _MOST:
        _wrong(path, f"{where}.{key}", value, "is no time")
    return value


def _tensors(entry: dict[str, Any]) -> tuple[Tensors, int | None]:
    """What the call was given, and the bytes of its inputs, or None."""
    input_types, output_types = _types(entry.get("input_dtypes")), _types(entry.get("output_dtypes"))
    inputs, outputs = _numels(entry.get("input_sizes")), _numels(entry.get("output_sizes"))
    return Tensors(inputs, outputs, input_types, output_types), bytes_of(inputs, input_types)


def bytes_of(numels: tuple[int, ...] | None, types: tuple[str, ...]) -> int | None:
    """The size of tensors, None where a size or type is not known; a call without tensors has size 0."""
    if numels is None or (numels and len(types) not in (1, len(numels))):
        return None
    total = 0
    for place, numel in enumerate(numels):
        size = TYPES.get(types[place if len(types) > 1 else 0].lower())
        if size is None:
            return None
        total += numel * size[1]
    return total if total < 1 << 50 else None


def _types(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (intern(printable(value[:40])),) if value else ()
    if not isinstance(value, list | tuple) or len(value) > MOST_TENSORS:
        return ()
    return tuple(intern(_short(kind)[:40]) for kind in value)


def _numels(shapes: Any) -> tuple[int, ...] | None:
    """Values in each tensor; a tensor without dimensions has one."""
    if not isinstance(shapes, list | tuple) or len(shapes) > MOST_TENSORS:
        return None
    numels = []
    for shape in shapes:
        if not isinstance(shape, list | tuple) or len(shape) > 32:
            return None
        numel = 1
        for extent in shape:
            if type(extent) is not int or not 0 <= extent < 1 << 50:
                return None
            numel *= extent
        if numel >= 1 << 50:
            return None
        numels.append(numel)
    return tuple(numels)


def _groups(dump: Dump, values: dict[str, Any]) -> None:
    config, status = values.get("pg_config", {}), values.get("pg_status", {})
    for key, value in (("pg_config", config), ("pg_status", status)):
        kinds = (dict, list, tuple) if key == "pg_config" else (dict,)
        if not isinstance(value, dict) or not all(isinstance(group, kinds) for group in value.values()):
            _wrong(dump.path, key, value, "is no object of process groups")
    for name, group in config.items():
        described = isinstance(group, dict)
        text = group.get("ranks") if described else group  # torch 2.3 lists the ranks themselves
        known = Group(_short(group.get("desc", "")) if described else "", _ranks(text))
        dump.groups[_short(group.get("name", name)) if described else _short(name)] = known
    for name, group in status.items():
        numbers = {}
        for key, value in group.items():
            if re.fullmatch(r"-?[0-9]{1,18}", _short(value)):
                numbers[_short(key)] = int(value)
        dump.status[_short(name)] = numbers


def _ranks(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, str) and _RANKS.fullmatch(value):
        value = [int(word) for word in re.findall(r"[0-9]+", value)]
    if not isinstance(value, list | tuple) or not value:
        return None
    return tuple(value) if all(type(rank) is int and 0 <= rank < 10**7 for rank in value) else None


def _short(value: Any) -> str:
    """A plain value as text. Not a container: a small pickle can hold one that is endless when written out."""
    plain = isinstance(value, str | int | float) or value is None
    return printable(str(value)[:80]) if plain else type(value).__name__


def printable(text: str) -> str:
    """Text that cannot steer a terminal: anything unprintable as its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def _wrong(path: Path, key: str, value: Any, message: str) -> NoReturn:
    raise InputError.one(str(path), key, _short(value), message)
