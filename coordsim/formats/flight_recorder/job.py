"""Folds the dumps of a job's ranks into one table for each process group: what each rank called, by number.

A table takes some 30 bytes for a call, so the dumps of hundreds of ranks are folded one after the other.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from coordsim.errors import InputError
from coordsim.formats.flight_recorder.reader import Dump, Entry, Tensors, printable

MOST_GROUPS = 100_000
"""Largest number of groups of a job, which take some kilobytes each."""
SCHEDULED, STARTED, ENDED, DONE = range(4)
"""Gloo's calls end, and it is not recorded whether well or with an error."""
STATES = ("scheduled", "started", "ended", "completed")


class Operation(NamedTuple):
    """One record of a call, without its times."""

    name: str
    operation: str
    tensors: Tensors


class Call(NamedTuple):
    """Everything that a rank called under one number: one operation, or those of a coalesced call in their order."""

    operations: tuple[Operation, ...]
    closed: bool
    """Whether nothing can follow: a batch with the record that closes it, or one record that has begun."""


class Key(NamedTuple):
    """Identifies a group: on a mesh several groups of one name have different members."""

    name: str
    members: tuple[int, ...] | None


class Message(NamedTuple):
    """One send or receive."""

    sent: bool
    source: int
    destination: int
    """Ranks within the group."""
    tensors: Tensors
    state: int
    created_ns: int


@dataclass
class RankCalls:
    """What one rank called in one group, in its order; the columns have one value for each number."""

    numbers: array[int] = field(default_factory=lambda: array("q"))
    calls: array[int] = field(default_factory=lambda: array("l"))
    """Places in :attr:`Job.calls`."""
    states: bytearray = field(default_factory=bytearray)
    created_ns: array[int] = field(default_factory=lambda: array("q"))
    messages: list[Message] = field(default_factory=list)
    from_start: bool = False
    """Whether the first call of the group is still in the buffer."""
    whole: bool = False
    """Whether the buffer goes back to the rank's first call of any group."""
    cut: bool = False
    """Whether the file is cut off, so that the rank may have made further calls."""
    burnt: bool = False
    """Whether batches of sends took numbers of collectives (torch 2.4 to 2.6)."""

    @property
    def last(self) -> int:
        """The highest number; 0 if there was no call."""
        return self.numbers[-1] if self.numbers else 0

    def place(self, number: int) -> int | None:
        """Return the place of ``number``, or None."""
        if not self.numbers:
            return None
        guess = number - self.numbers[0]  # numbers rarely have gaps
        if 0 <= guess < len(self.numbers) and self.numbers[guess] == number:
            return guess
        return self.numbers.index(number) if number in self.numbers else None

    @property
    def last_done(self) -> int:
        """The highest number that ended; 0 if none did."""
        place = max(self.states.rfind(DONE), self.states.rfind(ENDED))
        return self.numbers[place] if place >= 0 else 0

    @property
    def first_open(self) -> int | None:
        """Place of the first call after the last one that ended."""
        place = max(self.states.rfind(DONE), self.states.rfind(ENDED)) + 1
        return place if place < len(self.states) else None


@dataclass
class Rank:
    """What is kept of one dump besides its calls."""

    label: str
    """Its number in words, or the file's name if that does not end in a number."""
    whole: bool
    version: str
    records: int
    status: dict[str, dict[str, int]]


@dataclass
class Job:
    """The dumps of all ranks. A dump without a rank has a negative number."""

    ranks: dict[int, Rank] = field(default_factory=dict)
    groups: dict[Key, dict[int, RankCalls]] = field(default_factory=dict)
    descriptions: dict[Key, str] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    names: Counter[str] = field(default_factory=Counter)
    """Records of all ranks, by name; sends and receives without their ranks."""
    shared_numbers: bool = False
    early: bool = False
    """Whether a dump is of a version in which batches of sends may take numbers of collectives (up to torch 2.6)."""
    sizes_in_part: bool = False
    """Whether a dump is of a version that does not record all sizes of exchanges (before torch 2.5)."""
    strangers: set[Key] = field(default_factory=set)
    """Groups that were called by a rank which is not among their recorded members."""
    _places: dict[Call, int] = field(default_factory=dict)
    _operations: dict[Operation, Operation] = field(default_factory=dict)

    def add(self, dump: Dump, name: str | None = None) -> int:
        """Fold one dump; return the number of its rank here. ``name`` is its file's, for a rank not known."""
        rank = dump.rank if dump.rank is not None else -1 - len(self.ranks)
        label = f"rank {rank}" if rank >= 0 else printable((name or dump.path.name)[-60:])
        self.ranks[rank] = Rank(label, dump.whole, dump.version, len(dump.entries), dump.status)
        self.shared_numbers |= dump.shared_numbers
        self.early |= dump.version_number <= (2, 4)
        self.sizes_in_part |= dump.version_number < (2, 4)
        for (key, description), entries in _by_group(dump).items():
            if len(self.groups) >= MOST_GROUPS and key not in self.groups:
                message = f"more than {MOST_GROUPS:,} process groups in the job"
                raise InputError.one(str(dump.path), "process_group", key.name, message)
            self.descriptions[key] = self.descriptions.get(key) or description
            if key.members is not None and rank >= 0 and rank not in key.members:
                if not entries:
                    continue  # the dump lists a group of others
                self.strangers.add(key)
            self.groups.setdefault(key, {})[rank] = self._fold(entries, dump.whole, dump.lost is not None)
        for entry in dump.entries:
            self.names[entry.name if entry.peers is None else f"{entry.name.partition(' ')[0]} a->b"] += 1
        return rank

    def label(self, key: Key) -> str:
        """Return the group in words: group 3 (mesh_tp)."""
        description = self.descriptions.get(key, "")
        more = f" ({description})" if description not in ("", "undefined") else ""
        return f"group {key.name}{more}" if key.name else f"the group without a name{more}"

    def is_default(self, key: Key) -> bool:
        """Return whether the group is that of all ranks."""
        description = self.descriptions.get(key, "")
        return description == "default_pg" or (key.name == "0" and not description)

    def join_unknown(self) -> None:
        """Join calls of ranks that do not know a group's members to those of ranks that do, if one group fits."""
        by_name: dict[str, list[Key]] = {}
        for key in self.groups:
            if key.members is not None:
                by_name.setdefault(key.name, []).append(key)
        for key in [key for key in self.groups if key.members is None]:
            others = by_name.get(key.name, [])
            for rank in list(self.groups[key]):
                fits = [other for other in others if other.members is not None and rank in other.members]
                if len(fits) == 1 and rank not in self.groups[fits[0]]:
                    self.groups[fits[0]][rank] = self.groups[key].pop(rank)
            if not self.groups[key]:
                del self.groups[key]

    def open_calls(self) -> dict[int, list[tuple[Key, int, str]]]:
        """Return rank -> its first open call (group, number, name) in each of the first two groups that have one."""
        calls: dict[int, list[tuple[Key, int, str]]] = {}
        for key, ranks in self.groups.items():
            for rank, own in ranks.items():
                place = own.first_open
                if place is not None and len(calls.get(rank, ())) < 2:
                    name = self.calls[own.calls[place]].operations[0].name
                    calls.setdefault(rank, []).append((key, own.numbers[place], name))
        return calls

    def _fold(self, entries: list[Entry], whole: bool, cut: bool) -> RankCalls:
        rank = RankCalls(whole=whole, cut=cut)
        open_batch: list[Entry] = []
        numbered: dict[int, list[Entry]] = {}
        for entry in entries:
            if entry.p2p:
                if entry.closes_batch:
                    self._close(rank, open_batch, entry)
                    open_batch = []
                elif entry.peers is not None:
                    open_batch.append(entry)
                continue
            if entry.closes_batch and open_batch and entry.sequence not in numbered:
                rank.burnt = True
                self._close(rank, open_batch, entry)
                open_batch = []
                continue
            numbered.setdefault(entry.sequence, []).append(entry)
        self._close(rank, open_batch, None)
        first = min(numbered, default=0)
        rank.from_start = whole and first <= 1
        for number in sorted(numbered):
            records = numbered[number]
            if number == first and not whole and (len(records) > 1 or records[-1].closes_batch):
                continue  # the buffer may have lost the beginning of a coalesced call
            call, state = self._call(records)
            rank.numbers.append(number)
            rank.calls.append(self._place(call))
            rank.states.append(state)
            rank.created_ns.append(records[0].created_ns or 0)
        return rank

    @staticmethod
    def _close(rank: RankCalls, batch: list[Entry], closing: Entry | None) -> None:
        """Take sends and receives over. In a batch only the record that closes it has a state.

        A batch that nothing closes has no state: its sends count as ended, so that they accuse no rank.
        """
        alone = Counter(entry.p2p_sequence for entry in batch)
        for entry in batch:
            assert entry.peers is not None
            state = _state(entry)
            if closing is not None and (entry.p2p_sequence, entry.sequence) == (closing.p2p_sequence, closing.sequence):
                state = max(state, _state(closing))
            elif entry.p2p_sequence is not None and alone[entry.p2p_sequence] > 1 and state == SCHEDULED:
                state = DONE
            rank.messages.append(
                Message(entry.operation == "send", *entry.peers, entry.tensors, state, entry.created_ns or 0)
            )

    def _call(self, records: list[Entry]) -> tuple[Call, int]:
        closing = records[-1] if records[-1].closes_batch else None
        parts = [record for record in records if not record.closes_batch] or records
        operations = []
        for record in parts:
            operation = Operation(record.name, record.operation, record.tensors)
            operations.append(self._operations.setdefault(operation, operation))
        state = _state(closing) if closing is not None else min(map(_state, records))
        return Call(tuple(operations), closing is not None or (len(records) == 1 and state != SCHEDULED)), state

    def _place(self, call: Call) -> int:
        place = self._places.setdefault(call, len(self.calls))
        if place == len(self.calls):
            self.calls.append(call)
        return place


def _state(entry: Entry) -> int:
    if entry.done:
        return DONE if entry.state == "completed" else ENDED
    return STARTED if entry.state == "started" else SCHEDULED


def _by_group(dump: Dump) -> dict[tuple[Key, str], list[Entry]]:
    """Return the dump's entries by group and description; groups that it lists and did not call have none."""
    keys: dict[tuple[str, str], tuple[Key, str]] = {}
    groups: dict[tuple[Key, str], list[Entry]] = {}
    for entry in dump.entries:
        pair = (entry.group, entry.description)
        known = keys.get(pair)
        if known is None:
            members = entry.members or members_of(dump, entry.group, entry.status)
            known = keys[pair] = (Key(entry.group, members), entry.description)
        groups.setdefault(known, []).append(entry)
    called = {name for name, _ in keys}
    for name, group in dump.groups.items():
        if name and group.ranks is not None and name not in called:
            groups[Key(name, group.ranks), group.description] = []
    return groups


def members_of(dump: Dump, name: str, status: str) -> tuple[int, ...] | None:
    """Return the ranks of a group as its dump lists them, or None.

    Gloo lists one group without a name, the one that was made last; if a rank has no other, it is the whole job.
    """
    if name in dump.groups:
        return dump.groups[name].ranks
    if set(dump.groups) == {""} and all(entry.group == name for entry in dump.entries) and set(dump.status) <= {status}:
        return dump.groups[""].ranks
    return None
