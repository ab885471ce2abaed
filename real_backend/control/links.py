"""One connection between two ranks: frames in both directions, as few system calls as can be."""

from __future__ import annotations

import contextlib
import socket
import struct
from enum import IntEnum

from coordsim.protocol.readiness import ProtocolError

FRAME = struct.Struct("<IBI")
"""Payload bytes, kind, cycle (modulo 2^32)."""
LARGEST_FRAME = 1 << 31
"""A longer payload is taken for garbage."""
_CHUNK = 1 << 16


class Kind(IntEnum):
    """What a frame carries."""

    RING = 0
    """The sender has entered that cycle: do so too."""
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
    """Its result."""
    ALIVE = 16
    """Life line: a sign of life, with times."""
    LOST = 17
    """Life line: a rank is lost; the job is over."""
    GOODBYE = 18
    """Life line: the sender has left as agreed."""
    NOTICE = 19
    """Life line: text that every rank is to tell its user."""


class LinkLost(ConnectionError):
    """The neighbour at the other end is gone, or this end was broken off."""

    def __init__(self, rank: int, reason: str) -> None:
        super().__init__(f"rank {rank}: {reason}")
        self.rank = rank
        self.reason = reason


class Link:
    """A connected socket to one neighbour. Used by one thread, but for :meth:`break_off`."""

    __slots__ = ("_buffer", "_start", "peer", "socket")

    def __init__(self, connected: socket.socket, peer: int) -> None:
        """``peer``: the rank at the other end."""
        self.socket = connected
        self.peer = peer
        self._buffer = bytearray()
        self._start = 0
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, kind: Kind, cycle: int, payload: bytes | memoryview = b"") -> None:
        """Raises LinkLost."""
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
        """Whether bytes have been read that no frame was made of yet."""
        return len(self._buffer) > self._start

    def peek(self) -> tuple[Kind, int]:
        """Kind and cycle of the next frame, which stays; blocks for its head. Raises as :meth:`receive`."""
        self._fill(FRAME.size)
        length, kind, cycle = FRAME.unpack_from(self._buffer, self._start)
        if length > LARGEST_FRAME or kind not in _KINDS:
            raise ProtocolError(f"rank {self.peer} sent no frame: {length} bytes of kind {kind}")
        return Kind(kind), cycle

    def receive(self) -> tuple[Kind, int, bytes]:
        """The next frame. Raises LinkLost when the peer is gone, ProtocolError for what is no frame."""
        kind, cycle = self.peek()
        (length,) = struct.unpack_from("<I", self._buffer, self._start)
        stop = FRAME.size + length
        self._fill(stop)
        payload = bytes(memoryview(self._buffer)[self._start + FRAME.size : self._start + stop])
        self._drop(stop)
        return kind, cycle, payload

    def receive_into(self, kind: Kind, target: memoryview) -> None:
        """The payload of the next frame, of exactly that kind and length, without another copy."""
        found, _ = self.peek()
        (length,) = struct.unpack_from("<I", self._buffer, self._start)
        if found is not kind or length != target.nbytes:
            wanted = f"{kind.name} of {target.nbytes}"
            raise ProtocolError(f"rank {self.peer} sent {found.name} of {length} bytes, not {wanted}")
        begin = self._start + FRAME.size
        have = min(len(self._buffer) - begin, length)
        target[:have] = memoryview(self._buffer)[begin : begin + have]
        self._drop(FRAME.size + have)
        while have < length:
            try:
                got = self.socket.recv_into(target[have:])
            except OSError as error:
                raise LinkLost(self.peer, str(error)) from error
            if not got:
                raise LinkLost(self.peer, "it closed its connection")
            have += got

    def read_more(self) -> None:
        """One read. Raises LinkLost when the peer is gone."""
        try:
            data = self.socket.recv(_CHUNK)
        except OSError as error:
            raise LinkLost(self.peer, str(error)) from error
        if not data:
            raise LinkLost(self.peer, "it closed its connection")
        self._buffer += data

    def whole(self) -> bool:
        """Whether a whole frame can be had without blocking."""
        have = len(self._buffer) - self._start
        if have < FRAME.size:
            return False
        (length,) = struct.unpack_from("<I", self._buffer, self._start)
        return have >= FRAME.size + int(length)

    def _fill(self, size: int) -> None:
        while len(self._buffer) - self._start < size:
            self.read_more()

    def _drop(self, size: int) -> None:
        self._start += size
        if self._start == len(self._buffer):
            self._buffer.clear()
            self._start = 0

    def break_off(self) -> None:
        """From any thread: reads and writes that block raise LinkLost."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.socket.close()


_KINDS = frozenset(int(kind) for kind in Kind)
