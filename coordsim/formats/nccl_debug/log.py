"""Collects the content of one job's logs, communicator by communicator."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from coordsim.formats.nccl_debug import lines
from coordsim.formats.nccl_debug.lines import Call, Init, Message, Timings

MOST_MEMBERS = 1 << 17
"""Largest number of ranks of communicators of which details are kept; those beyond it are counted."""
MOST_LOOSE = 1 << 16
"""Largest number of initialisation times of communicators that no other line mentions."""
MOST_CALLS = 1 << 23
"""Largest number of calls that are kept, 26 bytes each; those beyond it are counted."""
MOST_PROCESSES = 1 << 20
MOST_WARNINGS = 1000
_LONGEST_WARNING = 160
_LONGEST_FRONT = 64


@dataclass(slots=True)
class Member:
    """One rank of one communicator."""

    process: int
    comm: str
    """Its address in the process."""
    ranks: int
    index: int
    """Place in :attr:`Log.members`."""
    rank: int | None = None
    job_rank: int | None = None
    """Rank in the job, if RCCL's calls state it."""
    function: str | None = None
    id: str | None = None
    parent: Member | None = None
    split: str | None = None
    has_parent: bool = False
    nodes: int | None = None
    channels: int | None = None
    started: bool = False
    completed: bool = False
    ended: bool = False
    torn: bool = False
    """Whether a line about its initialisation was torn."""
    timings: Timings | None = None


@dataclass
class Log:
    """All of one job's logs."""

    processes: list[tuple[str, int]] = field(default_factory=list)
    """(host, pid); where lines have lost their beginnings, the host is "" and pid is the GPU's number."""
    said: list[Counter[str]] = field(default_factory=list)
    """Host names before a process's messages -> number of messages."""
    members: list[Member] = field(default_factory=list)
    loose_timings: list[tuple[int, Timings]] = field(default_factory=list)
    """(process, times) of communicators that no other line mentions."""
    names: list[str] = field(default_factory=list)
    member: array[int] = field(default_factory=lambda: array("i"))
    number: array[int] = field(default_factory=lambda: array("q"))
    name: array[int] = field(default_factory=lambda: array("h"))
    nbytes: array[int] = field(default_factory=lambda: array("q"))
    """Bytes; -1 if the type is not known."""
    type: array[int] = field(default_factory=lambda: array("h"))
    root: array[int] = field(default_factory=lambda: array("i"))
    versions: Counter[str] = field(default_factory=Counter)
    networks: Counter[str] = field(default_factory=Counter)
    connections: Counter[str] = field(default_factory=Counter)
    tuned: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    rings: Counter[int] = field(default_factory=Counter)
    messages: int = 0
    torn: int = 0
    """Number of messages in whose line another one begins."""
    torn_calls: Counter[int] = field(default_factory=Counter)
    """Process -> calls whose communicator is torn off, so that none of its calls can be reported as missing."""
    members_beyond: int = 0
    calls_beyond: int = 0
    table_at: str | None = None
    """File and line of a table of nccl-tests."""
    _process: dict[tuple[str, int], int] = field(default_factory=dict)
    _hosts: set[str] = field(default_factory=set)
    """Names at the beginnings of lines."""
    _by_pid: dict[int, list[int]] = field(default_factory=dict)
    _current: dict[tuple[int, str], Member] = field(default_factory=dict)
    _latest: dict[tuple[int, int, int], Member] = field(default_factory=dict)
    _channels: dict[tuple[int, int], int] = field(default_factory=dict)
    """(process, thread) -> channels of the communicator that it is initialising."""
    _names: dict[str, int] = field(default_factory=dict)

    def read(self, file: str, text: Iterable[str]) -> None:
        """Read the lines of one file."""
        for number, line in enumerate(text, 1):
            if "CCL" not in line:
                if self.table_at is None and "busbw" in line and "algbw" in line:
                    self.table_at = f"{file}, line {number}"
                continue
            if "CCL version" in line and (version := lines.version_of(line)) is not None:
                self.versions[version] += 1
            messages = lines.messages_of(line)
            self.torn += len(messages) if len(messages) > 1 else 0
            for message in messages:
                self._take(message)

    def _take(self, message: Message) -> None:
        process = self._process_of(message)
        if process is None:
            return
        self.messages += 1
        text = message.text
        if message.level == "NCCL WARN":
            if len(self.warnings) < MOST_WARNINGS or text[:_LONGEST_WARNING] in self.warnings:
                self.warnings[text[:_LONGEST_WARNING]] += 1
        elif ": opCount " in text:
            call = lines.call_of(message)
            if call is not None:
                self._call(process, call)
            elif lines.is_torn_call(message):
                self.torn_calls[process] += 1
        elif text.startswith("Init timings"):
            timings = lines.timings_of(message)
            if timings is not None:
                self._timings(process, timings)
        elif " rank " in text and (init := lines.init_of(message)) is not None:
            self._init(process, init, message)
        else:
            self._other(process, message)

    def _other(self, process: int, message: Message) -> None:
        if (channels := lines.channels_of(message)) is not None:
            self._channels[process, message.tid] = channels
        elif (network := lines.network_of(message)) is not None:
            self.networks[network] += 1
        elif (how := lines.connection_of(message)) is not None:
            self.connections[how] += 1
        elif (rings := lines.rings_of(message)) is not None:
            self.rings[rings] += 1
        elif (tuned := lines.tuning_of(message)) is not None:
            self.tuned[tuned] += 1

    def _process_of(self, message: Message) -> int | None:
        """Return the process that wrote a message; None if a torn line does not state it.

        A tear leaves only the end of a host's name, or glues another line's text to its front: a name that ends as that
        of a process with the same number is taken for it.
        """
        if message.host is None:
            key = ("", message.device if message.device is not None else -1)
        else:
            key = (message.host if message.first else self._without_front(message.host), message.pid)
        index = self._process.get(key)
        if index is None:
            for other in self._by_pid.get(message.pid, ()) if key[0] else ():
                name = self.processes[other][0]
                if name and (name.endswith(key[0]) or key[0].endswith(name)):
                    index = other
            if index is None and len(self.processes) < MOST_PROCESSES:
                index = len(self.processes)
                self.processes.append(key)
                if message.first:
                    self._hosts.add(key[0])
                self.said.append(Counter())
                self._by_pid.setdefault(message.pid, []).append(index)
            if index is None:
                return None
            self._process[key] = index
        self.said[index][key[0]] += 1
        return index

    def _without_front(self, host: str) -> str:
        """Return a host's name in the middle of a line, without the text that was glued to it."""
        cuts = (host[cut:] for cut in range(min(len(host), _LONGEST_FRONT)))
        return next((name for name in cuts if name in self._hosts), host)

    def settle(self) -> None:
        """Give each process the name that it had most often; call it after the last file."""
        for index, names in enumerate(self.said):
            self.processes[index] = (names.most_common(1)[0][0], self.processes[index][1])

    def _init(self, process: int, init: Init, message: Message) -> None:
        current = self._current.get((process, init.comm))
        if init.event is not None and not init.event.startswith("Init"):
            if current is not None and init.event.endswith("COMPLETE"):
                current.ended = True
            return
        if current is None or _is_another(current, init):
            current = self._add(Member(process, init.comm, init.ranks, len(self.members)))
            if current is None:
                return
        current.rank = init.rank
        current.function = init.function or current.function
        current.id = init.id or current.id
        current.nodes = init.nodes or current.nodes
        if init.parent is not None:
            current.has_parent, current.split = True, init.split
            current.parent = current.parent or self._current.get((process, init.parent))
        current.started |= init.event == "Init START"
        current.completed |= init.event == "Init COMPLETE"
        current.torn |= init.event is None and not message.whole
        if init.event == "Init COMPLETE":  # the thread says the channels just before
            current.channels = self._channels.pop((process, message.tid), None)
        self._latest[process, init.rank, init.ranks] = current

    def _add(self, member: Member) -> Member | None:
        if len(self.members) == MOST_MEMBERS:
            self.members_beyond += 1
            return None
        self.members.append(member)
        self._current[member.process, member.comm] = member
        return member

    def _timings(self, process: int, timings: Timings) -> None:
        member = self._latest.get((process, timings.rank, timings.ranks))
        if member is not None and member.timings is None:
            member.timings, member.completed = timings, True
            member.function = member.function or timings.function
        elif not self.members_beyond and len(self.loose_timings) < MOST_LOOSE:
            self.loose_timings.append((process, timings))

    def _call(self, process: int, call: Call) -> None:
        member = self._current.get((process, call.comm))
        if member is None or member.ranks != call.ranks:
            member = self._add(Member(process, call.comm, call.ranks, len(self.members)))
        if member is None or len(self.number) == MOST_CALLS:
            self.calls_beyond += 1
            return
        member.job_rank = call.rank
        name = self._names.get(call.name)
        if name is None:
            if len(self.names) == 1000:
                self.calls_beyond += 1
                return
            name = self._names[call.name] = len(self.names)
            self.names.append(call.name)
        self.member.append(member.index)
        self.number.append(call.number & (1 << 62) - 1)
        self.name.append(name)
        self.nbytes.append(-1 if call.nbytes is None or call.nbytes >= 1 << 62 else call.nbytes)
        self.type.append(call.type)
        self.root.append(call.root)


def _is_another(member: Member, init: Init) -> bool:
    """Return whether ``init`` concerns another communicator than ``member``; an address is reused after its end."""
    if member.ended or member.rank != init.rank or member.ranks != init.ranks:
        return True
    if init.event == "Init START":
        return member.started or member.completed
    return init.event == "Init COMPLETE" and member.completed
