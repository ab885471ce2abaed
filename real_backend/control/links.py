"""One connection between two ranks: frames in both directions, with as few system calls as possible."""

from __future__ import annotations

import contextlib
import socket
import struct
from enum import IntEnum

from coordsim.protocol.links import FRAME
from coordsim.protocol.readiness import ProtocolError

_LENGTH = struct.Struct("<I")
LARGEST_FRAME = 1 << 31
"""A longer payload is taken for garbage."""
_CHUNK = 1 << 16


class Kind(IntEnum):
    """The content of a frame."""

    RING = 0
    """The sender has entered that cycle, and the receiver is to enter it."""
    AND = 1
    OR = 2
    GATHER = 3
    BROADCAST = 4
    CLAIMS = 5
    VERDICT = 6
    TO_PARENT = 7
    DOWN_TREE = 8
    DATA_UP = 9
    """A contribution to a small reduction."""
    DATA_DOWN = 10
    """The result of a small reduction."""
    ALIVE = 16
    """Life line: a sign of life, with times."""
    LOST = 17
    """Life line: a rank is lost, and the job is over."""
    GOODBYE = 18
    """Life line: the sender has left as agreed."""
    NOTICE = 19
    """Life line: a text that every rank prints for its user."""


class LinkLost(ConnectionError):
    """The neighbour at the other end is gone, or this end was broken off."""

    def __init__(self, rank: int, reason: str) -> None:
        super().__init__(f"rank {rank}: {reason}")
        self.rank = rank
        self.reason = reason


class Link:
    """A connected socket to one neighbour, used by one thread except for :meth:`break_off`."""

    __slots__ = ("_buffer", "_start", "_stop", "_view", "peer", "socket")

    def __init__(self, connected: socket.socket, peer: int) -> None:
        """``peer`` is the rank at the other end."""
        self.socket = connected
        self.peer = peer
        self._buffer = bytearray(_CHUNK)
        self._view = memoryview(self._buffer)
        self._start = self._stop = 0
        """Begin of the bytes that have been read and not taken."""
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, kind: Kind, cycle: int, payload: bytes | memoryview = b"") -> None:
        """Send a frame. Raises LinkLost."""
        head = FRAME.pack(len(payload), kind, cycle & 0xFFFFFFFF)
        if len(payload) <= _CHUNK:
            self._send_all(head + bytes(payload))
        else:
            self._send_all(head)
            self._send_all(payload)

    def _send_all(self, data: bytes | memoryview) -> None:
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise LinkLost(self.peer, str(error)) from error

    @property
    def heard(self) -> bool:
        """Whether bytes have been read that are not part of a frame taken."""
        return self._stop > self._start

    def peek(self) -> tuple[Kind, int]:
        """Return kind and cycle of the next frame without taking it; blocks for its head. Raises as :meth:`receive`."""
        _, kind, cycle = self._head()
        return kind, cycle

    def receive(self) -> tuple[Kind, int, bytes]:
        """Take the next frame. Raises LinkLost when the peer is gone, ProtocolError if the bytes are no frame."""
        length, kind, cycle = self._head()
        if length <= _CHUNK - FRAME.size:
            self._fill(FRAME.size + length)
            begin = self._start + FRAME.size
            payload = bytes(self._view[begin : begin + length])
            self._drop(FRAME.size + length)
            return kind, cycle, payload
        large = bytearray(length)
        self._drain_into(memoryview(large))
        return kind, cycle, bytes(large)

    def receive_into(self, kind: Kind, target: memoryview) -> None:
        """Read the payload of the next frame into ``target`` without another copy.

        Raises ProtocolError if the frame has another kind or length, and otherwise as :meth:`receive`.
        """
        length, received, _ = self._head()
        if received is not kind or length != target.nbytes:
            wanted = f"{kind.name} of {target.nbytes}"
            raise ProtocolError(f"rank {self.peer} sent {received.name} of {length} bytes, not {wanted}")
        self._drain_into(target)

    def read_more(self) -> None:
        """Read once. Raises LinkLost when the peer is gone."""
        if self._stop == _CHUNK:  # Only while a frame is incomplete, so there is room in front.
            self._view[: self._stop - self._start] = bytes(self._view[self._start : self._stop])
            self._start, self._stop = 0, self._stop - self._start
        self._stop += self._read(self._view[self._stop :])

    def whole(self) -> bool:
        """Whether a complete frame can be taken without blocking."""
        have = self._stop - self._start
        return have >= FRAME.size and have >= FRAME.size + int(_LENGTH.unpack_from(self._buffer, self._start)[0])

    def _head(self) -> tuple[int, Kind, int]:
        self._fill(FRAME.size)
        length, kind, cycle = FRAME.unpack_from(self._buffer, self._start)
        known = _KINDS.get(kind)
        if length > LARGEST_FRAME or known is None:
            raise ProtocolError(f"rank {self.peer} sent no frame: {length} bytes of kind {kind}")
        return length, known, cycle

    def _drain_into(self, target: memoryview) -> None:
        """Copy the payload behind the head: first the bytes that have been read, then from the socket."""
        begin = self._start + FRAME.size
        have = min(self._stop - begin, target.nbytes)
        target[:have] = self._view[begin : begin + have]
        self._drop(FRAME.size + have)
        while have < target.nbytes:
            have += self._read(target[have:])

    def _read(self, into: memoryview) -> int:
        try:
            got = self.socket.recv_into(into)
        except OSError as error:
            raise LinkLost(self.peer, str(error)) from error
        if not got:
            raise LinkLost(self.peer, "it closed its connection")
        return got

    def _fill(self, size: int) -> None:
        while self._stop - self._start < size:
            self.read_more()

    def _drop(self, size: int) -> None:
        self._start += size
        if self._start == self._stop:
            self._start = self._stop = 0

    def break_off(self) -> None:
        """Make blocked reads and writes raise LinkLost; may be called from any thread."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.socket.close()


_KINDS = {int(kind): kind for kind in Kind}
