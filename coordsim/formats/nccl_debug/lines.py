"""The content of one line of a log with NCCL_DEBUG=INFO, of NCCL 2.4 to 2.30 and of RCCL.

The wordings are those of ``src/init.cc``, ``src/enqueue.cc``, ``src/debug.cc`` and ``src/transport/`` of both.
Processes that share an output tear each other's lines: a line may hold the beginnings of several messages, and the rest
of one may stand a line later. Text that could be another message's rest is not used.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LEVEL = re.compile(r"NCCL (?:INFO|WARN|TRACE|CALL) ")
_WHO = re.compile(r"(?P<host>[^\s:|\[\]\"'(){}]{1,256}):(?P<pid>[0-9]{1,10}):(?P<tid>[0-9]{1,10})$")
_BETWEEN = re.compile(r"\[(?P<device>-?[0-9]{1,6})\]|[0-9.]{6,24}|\S{1,120}:[0-9]{1,7}|\([^)]{1,80}\)")
"""Text between ``host:pid:tid`` and the level: the device, a time, the place in NCCL's source, its function."""
_TUNED = re.compile(
    r"(?:\w{1,40}: )?[0-9]{1,18} Bytes -> Algo (?P<algorithm>[A-Z0-9_]{1,20}) proto (?P<protocol>[A-Z0-9_]{1,20})"
)
LONGEST_LINE = 1 << 14
"""Number of characters of a line that are examined."""
_INIT = re.compile(
    r"(?:\[Rank [0-9]{1,9}\] )?(?:(?P<function>ncclComm\w{1,40}) )?comm (?P<comm>\S{1,40}) "
    r"rank (?P<rank>[0-9]{1,8}) n[rR]anks (?P<ranks>[0-9]{1,8}) (?P<rest>.*)"
)
_END = re.compile(r"- ?(?P<what>Init|Destroy|Abort|Finalize) (?P<end>START|COMPLETE)\b")
_COMM_ID = re.compile(r"\bcommId (0x[0-9a-f]{1,16})\b")
_PARENT = re.compile(r"\bparent (0x[0-9a-f]{1,16})\b")
_SPLIT = re.compile(r"\b(?:(?:splitCount|childCount) ([0-9]{1,9}) )?color (-?[0-9]{1,10})\b")
_NODES = re.compile(r"\bnNodes ([0-9]{1,7})\b")
_TIMINGS = re.compile(
    r"Init timings(?: - (?P<function>\w{1,60}))?: rank (?P<rank>[0-9]{1,8}) nranks (?P<ranks>[0-9]{1,8}) "
    r"total (?P<total>[0-9]{1,9}\.[0-9]{1,9}) \((?P<phases>[^()]*)(?P<whole>\))?"
)
_PHASE = re.compile(r"(\w{1,40}) (-?[0-9]{1,9}\.[0-9]{1,9})(?=,|$)")
_CALL = re.compile(
    r"(?P<name>\w{1,40}): opCount (?P<count>[0-9a-f]{1,16}) sendbuff \S+ recvbuff \S+ count (?P<elements>[0-9]{1,18}) "
    r"datatype (?P<type>[0-9]{1,4}) op (?P<op>[0-9]{1,10}) root (?P<root>-?[0-9]{1,8}) comm (?P<comm>\S{1,40}) "
    r"\[nranks=(?P<ranks>[0-9]{1,8})\] stream \S+(?: task \S+ globalrank (?P<rank>[0-9]{1,8}))?"
)
_TORN_CALL = re.compile(r"\w{1,40}: opCount\b")
_VERSION = re.compile(r"\b(NCCL|RCCL) version\s?:? ?([0-9]+\.[0-9]+[^\s,\"'\\]{0,40})")
_CHANNELS = re.compile(r"([0-9]{1,5}) coll channels\b")
_RING = re.compile(r"Channel [0-9]{2,4}/([0-9]{2,4}) :\s+(?:[0-9]+\s*)+$")
_NETWORK = re.compile(r"Using network (?P<used>\S.{0,39})$|Assigned NET plugin (?P<plugin>\S.{0,39}) to comm$")
_OLD_NETWORK = re.compile(r"NET/(IB|Socket|OFI)\s?: Using ")
_VIA = re.compile(
    r"(?:Channel|Ring) [0-9]+(?:/[0-9]+)? : [0-9]+\S* -> [0-9]+\S* (?:\[(?:send|receive)\] )?via "
    r"(?P<how>NET/[^/]{1,40}(?:/[\w()]{1,40}){1,4}|\w{1,20}(?:/\w{1,20}){0,4}(?: pointer| device| shared memory)?)"
    r"(?=[\s(]|$)"
)
_NUMBERS = re.compile(r"/(?=[0-9(])[0-9]*(?:\([0-9]+\))?(?=/|$)|\([A-Z]+\)$")


class Message(NamedTuple):
    """One message, or the part of it that stands in its line."""

    host: str | None
    """None, as pid and tid, if the line has lost its beginning."""
    pid: int
    tid: int
    device: int | None
    level: str
    text: str
    whole: bool
    """Whether no other message began in the same line, before or after it."""
    first: bool
    """Whether it begins the line (behind a launcher's prefix)."""


class Init(NamedTuple):
    """The begin or end of a communicator on one rank."""

    function: str | None
    comm: str
    rank: int
    ranks: int
    event: str | None
    """``Init START``, ``Init COMPLETE``, ``Destroy COMPLETE``, ``Abort COMPLETE``; None if that was torn off."""
    id: str | None
    parent: str | None
    split: str | None
    """Number of the parent's split, with its colour."""
    nodes: int | None


class Timings(NamedTuple):
    """Seconds that one rank took to initialise a communicator."""

    function: str | None
    rank: int
    ranks: int
    total: float
    phases: dict[str, float]
    whole: bool
    """Whether all phases are there."""


class Call(NamedTuple):
    """One call of an operation on one rank."""

    name: str
    number: int
    """opCount: number of kernels launched in the communicator before."""
    nbytes: int | None
    """Elements times their size; None for a type that is not known."""
    type: int
    op: int
    root: int
    comm: str
    ranks: int
    rank: int | None
    """Rank in the job, if RCCL states it."""


_SIZES = {0: 1, 1: 1, 2: 4, 3: 4, 4: 8, 5: 8, 6: 2, 7: 4, 8: 8, 9: 2, 10: 1, 11: 1}
"""ncclDataType_t -> bytes; 9 is bfloat16 since 2.10, 10 and 11 are of 8 bits."""


def messages_of(line: str) -> list[Message]:
    """Return the messages that begin in ``line``: ``host:pid:tid [device] NCCL INFO ...``, whatever stands before.

    Users cut off the beginning, up to the device or the level.
    """
    levels = list(_LEVEL.finditer(line, 0, LONGEST_LINE))
    if not levels:
        return []
    fronts = []
    for place, match in enumerate(levels):
        fronts.append(_front(line, levels[place - 1].end() if place else 0, match.start()))
    alone = len(levels) == 1 and len(line) <= LONGEST_LINE
    messages = []
    for place, (match, front) in enumerate(zip(levels, fronts, strict=True)):
        end = fronts[place + 1].at if place + 1 < len(levels) else len(line)
        text, level = line[match.end() : max(end, match.end())].rstrip(), match[0][:-1]
        messages.append(Message(front.host, front.pid, front.tid, front.device, level, text, alone, place == 0))
    return messages


class _Front(NamedTuple):
    at: int
    host: str | None
    pid: int
    tid: int
    device: int | None


def _front(line: str, low: int, high: int) -> _Front:
    """Return the words before a level at ``high``, from there back, and where they begin."""
    device = None
    for _ in range(6):
        if high <= low or line[high - 1] != " ":
            break
        begin = max(line.rfind(" ", low, high - 1) + 1, low)
        word = line[begin : high - 1]
        who = _WHO.search(word)
        if who is not None:
            return _Front(begin + who.start(), who["host"], int(who["pid"]), int(who["tid"]), device)
        between = _BETWEEN.fullmatch(word)
        if between is None:
            break
        device = int(between["device"]) if between["device"] else device
        high = begin
    return _Front(high, None, 0, 0, device)


def init_of(message: Message) -> Init | None:
    """Return the communicator's event in a message; None if there is none."""
    match = _INIT.match(message.text)
    if match is None:
        return None
    ranks, rank = int(match["ranks"]), int(match["rank"])
    rest = match["rest"] if message.first else ""
    end, nodes = _END.search(rest), _NODES.search(rest)
    if rank >= ranks:
        return None
    if end is None and not message.whole:
        rest = ""
    name, parent, split = _COMM_ID.search(rest), _PARENT.search(rest), _SPLIT.search(rest)
    return Init(
        match["function"], match["comm"], rank, ranks, f"{end['what']} {end['end']}" if end else None,
        name[1] if name else None, parent[1] if parent else None,
        f"{split[1] or ''} {split[2]}" if split else None, int(nodes[1]) if nodes else None,
    )  # fmt: skip


def timings_of(message: Message) -> Timings | None:
    """Return the times of initialisation in a message; its phases only if nothing was torn off."""
    match = _TIMINGS.match(message.text)
    if match is None or int(match["rank"]) >= int(match["ranks"]):
        return None
    whole = message.whole and match["whole"] is not None
    phases = {name: float(value) for name, value in _PHASE.findall(match["phases"])} if whole else {}
    total = float(match["total"])
    # nine values with two digits each; the rest of another rank's line hardly ever adds up
    whole = whole and bool(phases) and abs(sum(phases.values()) - total) <= 0.005 * (len(phases) + 1) + 1e-9
    return Timings(match["function"], int(match["rank"]), int(match["ranks"]), total, phases if whole else {}, whole)


def call_of(message: Message) -> Call | None:
    """Return the call in a message; None for anything else, and if a part was torn off."""
    match = _CALL.match(message.text)
    if match is None or not message.first:
        return None
    kind = int(match["type"])
    size = _SIZES.get(kind)
    return Call(
        match["name"], int(match["count"], 16), None if size is None else int(match["elements"]) * size, kind,
        int(match["op"]), int(match["root"]), match["comm"], int(match["ranks"]),
        int(match["rank"]) if match["rank"] else None,
    )  # fmt: skip


def is_torn_call(message: Message) -> bool:
    """Return whether a message begins as a call does; used if :func:`call_of` found none."""
    return _TORN_CALL.match(message.text) is not None


def version_of(line: str) -> str | None:
    """Return ``NCCL 2.23.4+cuda12.4``; None if no version is named."""
    match = _VERSION.search(line)
    return f"{match[1]} {match[2]}" if match else None


def channels_of(message: Message) -> int | None:
    """Return the number of channels for collectives, as a rank of 2.7 and later states it."""
    match = _CHANNELS.search(message.text)
    return int(match[1]) if match else None


def rings_of(message: Message) -> int | None:
    """Return the number of rings, as the first rank of a communicator lists them."""
    match = _RING.match(message.text)
    return int(match[1]) if match else None


def network_of(message: Message) -> str | None:
    """Return the network that a communicator uses."""
    if not message.whole:
        return None
    match = _NETWORK.match(message.text)
    if match is not None:
        return match["used"] or match["plugin"]
    old = _OLD_NETWORK.match(message.text)
    return old[1] if old else None


def connection_of(message: Message) -> str | None:
    """Return how a channel reaches its neighbour: ``P2P/CUMEM``, ``SHM/direct/direct``, ``NET/IB/GDRDMA``."""
    match = _VIA.match(message.text) if message.whole else None
    return _NUMBERS.sub("", match["how"]) if match else None


def tuning_of(message: Message) -> str | None:
    """Return algorithm and protocol that were chosen for a call (NCCL_DEBUG_SUBSYS=TUNING)."""
    match = _TUNED.match(message.text)
    if match is None:
        return None
    numbers = match["algorithm"].isdigit()  # before 2.23, whose meaning changed over the versions
    return f"algorithm {match['algorithm']} protocol {match['protocol']}" if numbers else " ".join(match.groups())
