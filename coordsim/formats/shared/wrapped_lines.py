"""Text that a program printed, out of the log of whatever ran it: lines without what launchers put around them.

:class:`WrappedLines` reads a file of any length, :func:`unwrap_lines` lines that are there already. Both give one
:class:`Line` for each line that *one program* wrote, in the order in which the lines were ended:

- tags of ``mpirun --tag-output`` and ``--timestamp-output`` (also in the middle of a line: they stand where a piece of
  output began), ``srun -l``, MPICH's ``-l``, ``kubectl logs --prefix`` and ``--timestamps``, CRI and docker compose,
  torchrun, Ray, pdsh, journald and syslog, Python's ``logging``, GitHub's runners, moreutils' ``ts``;
- colours and other terminal escapes, carriage returns (each piece of a progress bar is a line), Windows' ends of lines,
  byte order marks, UTF-16 as PowerShell writes it;
- a line of ``NCCL_DEBUG`` that was printed into the middle of another line is a line of its own, and the interrupted
  line goes on behind it.

What names a rank, a host or a container is kept as :attr:`Line.writer`, so that what several ranks printed in turns can
be told apart. A prefix that is not known stays in front of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from coordsim.formats.shared.sources import SourcePath, decoded_pieces, open_source

LONGEST_LINE = 1 << 20
"""Number of characters of a line that are kept; the rest is passed over."""
_MOST_PREFIXES = 8
_MOST_BEGUN = 4096
"""Largest number of writers whose unfinished lines are remembered."""
_MOST_HOSTS = 4096

_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_CLOCK = r"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
_CTIME = rf"\[?{_DAY} {_MONTH} [ \d]\d {_CLOCK} (?:[A-Z]{{3,4}} )?\d{{4}}\]?"
_ISO = rf"\[?\d{{4}}[-/]\d\d[-/]\d\d[T ]{_CLOCK}(?: ?Z| ?[+-]\d\d:?\d\d| UTC)?\]?"

_TAG = re.compile(
    rf"(?:{_CTIME}\s?)?"
    r"(?P<tag>\[(?:[\w.-]{1,200}@)?\d{1,9},(?:mpirank:)?\d{1,9}(?:,[\w.-]{1,200})?\](?:\[[\w.:-]{1,300}\])?)?"
    r"(?P<stream><std(?:out|err|diag)>):"
)
"""Tag of Open MPI, versions 1 to 5, and SageMaker, which can stand anywhere in a line."""
_RANK_IN_TAG = re.compile(r",(?:mpirank:)?(\d+)")

_PREFIX = re.compile(
    r"\s*+(?:"
    rf"(?:{_CTIME}|{_ISO}|{_MONTH} [ \d]\d {_CLOCK}|\[{_CLOCK}\]|{_CLOCK}|\[?\d{{10}}\.\d{{1,9}}\]?|\[ *\d+\.\d+\])"
    r"(?:[:,]|(?= )|(?=\t)|$)\s?"  # a time
    r"|\[(?P<role>[A-Za-z][A-Za-z_ ]{0,40})?(?P<number>\d{1,7})\](?::|(?=\s)|$) ?"  # torchrun, MPICH
    r"|(?P<task>\d{1,7}):(?: |$)"  # srun -l
    r"|\[(?P<pod>(?:pod/)[\w./-]{1,300})\] ?"  # kubectl --prefix
    r"|\((?P<ray>(?:[\w.]{1,100} )?pid=\d{1,9}(?:, ip=[\d.]{1,40})?)\) ?"
    r"|[Rr]ank[ _]?(?P<rank>\d{1,7})\s?[:|](?: |$)"
    r"|std(?:out|err) [FP](?: |$)"  # CRI
    r"|(?P<service>[A-Za-z0-9][\w.-]{0,200})\s*\|(?: |$)"  # docker compose
    r"|(?P<unit>[\w.-]{1,200} [\w./@-]{1,200}\[\d{1,9}\]):(?: |$)"  # journald, syslog
    r"|(?P<address>\d{1,3}(?:\.\d{1,3}){3}|(?=\d{0,11}[a-f])[0-9a-f]{12}):(?: |$)"  # pdsh: addresses, containers
    r"|(?P<host>[A-Za-z][\w.-]{0,200}\d[\w.-]{0,200}|[A-Za-z][\w.-]{0,200}(?=: \s*(?:#|\d+\s+\d+\s))):(?: |$)"  # pdsh
    r"|[^\t\n]{1,200}\t[^\t\n]{1,200}\t(?=\ufeff?\d{4}-\d\d-\d\dT)"  # gh run view --log
    r"|-? ?\[?(?:INFO|DEBUG|WARNING|ERROR)\]?(?: - |:[\w.]{0,200}: ?| ?: | )-? ?"  # Python's logging
    r"|>+ "
    r")"
)
_NAMES = ("role", "number", "task", "pod", "ray", "rank", "service", "unit", "address", "host")
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)?|[@-Z\\-_()*+][0-9A-Za-z]?)")
_CONTROL = dict.fromkeys([*range(9), *range(11, 32), 0x7F, 0xFEFF])
_DEBUG = re.compile(
    rf"(?:{_ISO} ?|(?<![\w.-]))(?P<host>[\w.-]{{1,320}}):\d{{1,9}}:\d{{1,9}} \[\d{{1,4}}\] "
    r"(?:\S{1,200} ){0,3}NCCL [A-Z]{4,7}\b"
)
"""How NCCL and RCCL begin a line of NCCL_DEBUG: host, process, thread, device. A host is a name, a container's id or an
IP address; the end of an interrupted line may stand directly before it."""
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_ADDRESS = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")
_PRIVATE = re.compile(r"10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.")
_CONTAINER = re.compile(r"[0-9a-f]{12}")
"""Docker's short id of a container, which is its host name by default."""
_NUMBER_BEFORE = re.compile(r"-?\d+(?:\.\d+)?(?=[A-Za-z])")
_FRACTION_BEFORE = re.compile(r"-?\d+\.\d+(?=[A-Za-z])")
_LONGEST_HOST = 253
"""Largest number of characters of a domain name."""


_ROW_BEFORE = re.compile(r"\d+\s+\d+\s+[a-z]\w*\s+(?:sum|prod|max|min|avg|none)(?=[A-Za-z])")
"""The beginning of a row of nccl-tests without ``root``, which ends in the operation."""


class Line(NamedTuple):
    """One line that one program wrote."""

    number: int
    """Line of the file in which it ended, from 1."""
    text: str
    """Text without prefixes, colours and line end."""
    writer: str
    """The rank, host or container that the prefixes name, in their own words; empty if there is none."""


class WrappedLines:
    """The lines of a file; iterate once.

    Raises InputError for a file that cannot be opened, and for damaged compression.
    """

    def __init__(self, path: SourcePath) -> None:
        self.lost: str | None = None
        """What a cut inside the compression removed; None so far if nothing is missing."""
        self.ended = True
        """Whether the last line has an end, which a truncated line has not."""
        self._path = path

    def __iter__(self) -> Iterator[Line]:
        return unwrap_lines(self._physical())

    def _physical(self) -> Iterator[str]:
        rest, skipping = "", False
        for text in self._decoded():
            lines = (rest + text).split("\n")
            rest = lines.pop()
            for line in lines:
                if not skipping:
                    yield line[:LONGEST_LINE]
                skipping = False
            if len(rest) > LONGEST_LINE:
                if not skipping:
                    yield rest[:LONGEST_LINE]
                rest, skipping = "", True
        self.ended = not rest
        if rest and not skipping:
            yield rest

    def _decoded(self) -> Iterator[str]:
        with open_source(self._path) as source:
            yield from decoded_pieces(source)
            self.lost = source.lost


def unwrap_lines(physical: Iterable[str]) -> Iterator[Line]:
    """Yield the lines that programs wrote, from the lines of a log, which have no line ends any more."""
    log = _Log()
    number = 0
    for number, line in enumerate(physical, 1):
        line = _ESCAPE.sub("", line) if "\x1b" in line else line
        for piece in line.rstrip("\r").split("\r"):
            yield from log.lines(number, piece.translate(_CONTROL))
    yield from log.rest(number)


class _Log:
    """One log: the lines that have not ended, and what its lines have shown so far."""

    def __init__(self) -> None:
        self._begun: dict[tuple[str, str], str] = {}
        """(writer, stream) -> text of a line that was interrupted."""
        self._spaced = True
        """Whether every tag so far was followed by a space, which is then part of the tag (Open MPI 5)."""
        self._hosts: set[str] = set()
        """Names at the beginning of lines of NCCL_DEBUG."""

    def lines(self, number: int, line: str) -> Iterator[Line]:
        """Yield the lines that end in ``line``, which stands at ``number`` in the file."""
        tags = list(_TAG.finditer(line)) if "<std" in line else []
        if not tags:
            writer, text = unwrap(line)
            yield from self._end(number, writer, "", text)
            return
        around, front = unwrap(line[: tags[0].start()])
        if front.strip():
            self._begin((around, ""), front)
        for place, tag in enumerate(tags):
            last = place + 1 == len(tags)
            text = line[tag.end() :] if last else line[tag.end() : tags[place + 1].start()]
            self._spaced = self._spaced and text[:1] in ("", " ")
            text = text[1:] if self._spaced else text
            rank = _RANK_IN_TAG.search(tag["tag"] or "")
            writer = " ".join(filter(None, (around, f"rank {rank[1]}" if rank else "")))
            if not last:
                self._begin((writer, tag["stream"]), text)
            elif (writer, tag["stream"]) in self._begun:
                yield from self._end(number, writer, tag["stream"], text)
            else:
                inner, text = unwrap(text)
                yield from self._end(number, " ".join(filter(None, (writer, inner))), tag["stream"], text)

    def rest(self, number: int) -> Iterator[Line]:
        """Yield lines that never ended."""
        for (writer, _), text in self._begun.items():
            if text.strip():
                yield Line(number, text, writer)

    def _end(self, number: int, writer: str, stream: str, text: str) -> Iterator[Line]:
        """End a line of ``writer`` with ``text``, behind what it had begun before. A debug line stands for itself."""
        key = (writer, stream)
        debug = _DEBUG.search(text) if "NCCL " in text else None
        if debug is None:
            begun = self._begun.pop(key, "") if self._begun else ""
            yield Line(number, begun + text, writer)
            return
        at = self._host_at(debug)
        if text[:at].strip():
            self._begin(key, text[:at])
        elif len(self._hosts) < _MOST_HOSTS:
            self._hosts.add(debug["host"])
        yield Line(number, text[at:], writer)

    def _host_at(self, debug: re.Match[str]) -> int:
        """Return where a line of NCCL_DEBUG begins in ``sumnodea:26:26 [1] NCCL INFO``, which has no space before
        it."""
        host, at = debug["host"], debug.start("host")
        if debug.start() != at or host in self._hosts:
            return debug.start()
        cuts = (cut for cut in range(1, len(host)) if host[cut - 1] not in "._-")
        known = next((cut for cut in cuts if host[cut:] in self._hosts), 0)
        if known:
            return at + known
        row = _ROW_BEFORE.search(debug.string[: at + len(host)])
        if row is not None and row.end() > at:
            return row.end()
        return at + _glued(host, begins_line=at < 2)  # a tag may leave one space

    def _begin(self, key: tuple[str, str], text: str) -> None:
        if key in self._begun or len(self._begun) < _MOST_BEGUN:
            self._begun[key] = (self._begun.get(key, "") + text)[:LONGEST_LINE]


def _glued(host: str, begins_line: bool) -> int:
    """Return how many characters before a new host's name are the end of an interrupted line.

    At the beginning of a line the whole text is the host's name, unless it begins with a fraction. Elsewhere a number
    before a name, an address or a container's id is taken for interrupted text, because programs print numbers.
    """
    if _ADDRESS.fullmatch(host) or _CONTAINER.fullmatch(host):
        return 0
    if begins_line and len(host) <= _LONGEST_HOST:
        match = _FRACTION_BEFORE.match(host)
        return match.end() if match else 0
    if "." in host:
        cuts = [cut for cut in range(1, len(host)) if host[cut - 1] != "-" and _ADDRESS.fullmatch(host, cut)]
        if cuts:  # digits of a number before an address may be the address's; hosts of a job have private ones
            return next((cut for cut in cuts if _PRIVATE.match(host, cut)), cuts[0])
    if _CONTAINER.fullmatch(host, len(host) - 12) and not host[: len(host) - 12].strip("0123456789."):
        return len(host) - 12
    match = _NUMBER_BEFORE.match(host)
    return match.end() if match else 0


def unwrap(line: str) -> tuple[str, str]:
    """Return (writer, text) of a line without colours and tags of Open MPI. Known prefixes are removed one after
    another."""
    writers: list[str] = []
    at = 0
    for _ in range(_MOST_PREFIXES):
        match = _PREFIX.match(line, at)
        if match is None or match.end() == at:
            break
        names = [match[name] for name in _NAMES if match[name]]
        writers += ["".join(names)] if names else []
        at = match.end()
    return " ".join(writers), line[at:]
