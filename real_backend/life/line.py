"""The life line: a thread that tells the neighbours in the tree that this rank lives, and watches them.

It has connections of its own, so that it works while the background thread is in a collective. A neighbour that closes
without a goodbye, or gives no sign for ``peer_timeout``, is lost; every rank is told at once. Signs of life also carry
times, from which ranks learn the offsets of their clocks from rank 0's.
"""

from __future__ import annotations

import contextlib
import select
import struct
import threading
import time
from collections.abc import Callable

from coordsim.protocol.readiness import ProtocolError
from real_backend.control.links import Kind, Link
from real_backend.control.rendezvous import Neighbours
from real_backend.life.clocks import Offset, OffsetEstimate, offset

SIGNS_PER_TIMEOUT = 6
"""Number of signs of life in a row that must be missed."""
FIRST_ROUND_TRIPS = 16
"""Number of quick round trips at the start, for a first estimate of the clocks."""

_TIMES = struct.Struct("<qqqqqB")
"""Sent, received, answered (ns, -1: none), the sender's offset from rank 0 and its error (ns), 1 for an answer."""
_RANK = struct.Struct("<I")
_NONE = -1
_LONGEST_NOTICE = 16_000


class LifeLine:
    """Watches the neighbours from the connection of the ranks until :meth:`leave` or the loss of a rank."""

    def __init__(
        self, neighbours: Neighbours, peer_timeout_s: float, alive: Callable[[], bool],
        lost: Callable[[int, str], None], notice: Callable[[str], None] = lambda _: None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:  # fmt: skip
        """``alive`` states whether the background thread of this rank lives.

        The life line's thread calls ``lost`` once, with a rank and the reason, and ``notice`` with each text that
        another rank sends to all users.
        """
        self._neighbours = neighbours
        self._timeout_s = peer_timeout_s
        self._alive = alive
        self._lost = lost
        self._notice = notice
        self._clock_ns = clock_ns
        self._links = {link.socket.fileno(): link for link in neighbours.links}
        self._heard = {link.peer: time.monotonic() for link in neighbours.links}
        self._poll = select.poll()
        for fd in self._links:
            self._poll.register(fd, select.POLLIN)
        self._estimate = OffsetEstimate()
        self._parents = Offset(0, 0)
        """The parent's offset from rank 0."""
        self._round_trips = 0
        self._lock = threading.Lock()
        self._told = False
        self._leaving = False
        self._thread = threading.Thread(target=self._run, name="coordsim-life", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def clock(self) -> Offset | None:
        """How far rank 0's clock is ahead of this rank's, with the error; None while it is not known."""
        if self._neighbours.parent is None:
            return Offset(0, 0)
        own = self._estimate.at(self._clock_ns())
        if own is None:
            return None
        return Offset(own.offset_ns + self._parents.offset_ns, own.error_ns + self._parents.error_ns)

    @property
    def measured(self) -> bool:
        """Whether the first round trips are over."""
        return self._neighbours.parent is None or self._round_trips >= FIRST_ROUND_TRIPS

    def declare_lost(self, rank: int, reason: str, via: Link | None = None) -> bool:
        """Tell all ranks that ``rank`` is lost; may be called from any thread. Returns False if a loss was reported
        before."""
        with self._lock:
            if self._told or self._leaving:
                return False
            self._told = True
            payload = _RANK.pack(rank) + reason.encode()[:4000]
            for link in self._neighbours.links:
                if link is not via and link.peer != rank:
                    _try_send(link, Kind.LOST, payload)
        self._lost(rank, reason)
        return True

    def tell_all(self, text: str, via: Link | None = None) -> None:
        """Have every other rank print ``text`` for its user; may be called from any thread."""
        with self._lock:
            for link in self._neighbours.links:
                if link is not via:
                    _try_send(link, Kind.NOTICE, text.encode()[:_LONGEST_NOTICE])

    def leave(self) -> None:
        """Say goodbye and stop, as all ranks have agreed."""
        with self._lock:
            if self._leaving:
                return
            self._leaving = True
            for link in self._neighbours.links:
                _try_send(link, Kind.GOODBYE, b"")
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._neighbours.break_off()
            self._thread.join(timeout=2.0)
        self._neighbours.close()

    # The thread.

    def _run(self) -> None:
        period_s = self._timeout_s / SIGNS_PER_TIMEOUT
        next_sign = time.monotonic()
        while self._links and not self._leaving and not self._told:
            before = time.monotonic()
            if before >= next_sign:
                next_sign = before + (period_s if self.measured else 0.002)
                if self._alive():
                    self._give_signs()
            ready = self._poll.poll(max(next_sign - time.monotonic(), 0.0) * 1000 + 1)
            now = time.monotonic()
            if now - before > self._timeout_s:  # This process itself did not run meanwhile.
                self._heard = dict.fromkeys(self._heard, now)
            for fd, _ in ready:
                self._read(fd)
            self._look_for_silence()

    def _give_signs(self) -> None:
        mine = self.clock
        for link in self._neighbours.links:
            if link.socket.fileno() in self._links:
                self._send_times(link, (_NONE, _NONE), mine, answer=False)

    def _send_times(self, link: Link, theirs: tuple[int, int], mine: Offset | None, *, answer: bool) -> None:
        known = (mine.offset_ns, mine.error_ns) if mine is not None else (0, _NONE)
        sent, received = (theirs if answer else (self._clock_ns(), _NONE))
        _try_send(link, Kind.ALIVE, _TIMES.pack(sent, received, self._clock_ns(), *known, answer))

    def _read(self, fd: int) -> None:
        link = self._links.get(fd)
        if link is None:
            return
        try:
            link.read_more()
            while link.whole():
                kind, _, payload = link.receive()
                self._heard[link.peer] = time.monotonic()
                self._take(link, kind, payload)
        except ConnectionError as error:
            self._forget(fd)
            if not self._leaving:
                self.declare_lost(link.peer, f"its connection was closed: the process ended or was killed ({error})")
        except (ProtocolError, struct.error) as error:
            self.declare_lost(link.peer, f"it sent what makes no sense: {error}")

    def _take(self, link: Link, kind: Kind, payload: bytes) -> None:
        if kind is Kind.ALIVE:
            self._take_times(link, payload)
        elif kind is Kind.LOST:
            (rank,) = _RANK.unpack_from(payload)
            self.declare_lost(rank, payload[_RANK.size :].decode(errors="replace"), via=link)
        elif kind is Kind.NOTICE:
            text = payload.decode(errors="replace")
            self.tell_all(text, via=link)
            self._notice(text)
        elif kind is Kind.GOODBYE:
            self._forget(link.socket.fileno())
        else:
            raise ProtocolError(f"{kind.name} on a life line")

    def _take_times(self, link: Link, payload: bytes) -> None:
        now_ns = self._clock_ns()
        sent, received, answered, offset_ns, error_ns, is_answer = _TIMES.unpack(payload)
        if not is_answer:
            self._send_times(link, (sent, now_ns), self.clock, answer=True)
        elif link is self._neighbours.parent:
            self._round_trips += 1
            self._estimate.add(offset(sent, received, answered, now_ns), now_ns)
            if error_ns >= 0:
                self._parents = Offset(offset_ns, error_ns)

    def _look_for_silence(self) -> None:
        now = time.monotonic()
        for link in tuple(self._links.values()):
            if now - self._heard[link.peer] > self._timeout_s:
                self.declare_lost(link.peer, f"its background thread gave no sign of life for {self._timeout_s:g} s")

    def _forget(self, fd: int) -> None:
        self._links.pop(fd, None)
        self._poll.unregister(fd)


def _try_send(link: Link, kind: Kind, payload: bytes) -> None:
    """Send to a neighbour; one that cannot be reached is lost itself, which its silence will show."""
    with contextlib.suppress(ConnectionError, BlockingIOError):
        link.send(kind, 0, payload)
