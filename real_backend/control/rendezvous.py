"""How ranks connect: addresses and a secret from the store, then proof that both ends know the secret.

Every rank listens on one interface, for its children in the tree alone, and stops when they are connected. A child
answers a challenge with an HMAC of the job's secret and is answered with another, so neither end accepts a stranger.
"""

from __future__ import annotations

import fcntl
import hmac
import os
import secrets
import socket
import struct
import time
from dataclasses import dataclass
from enum import IntEnum

from coordsim.protocol.negotiator import COORDINATOR, tree_children, tree_parent
from real_backend.control.links import Link
from real_backend.control.stores import Store
from real_backend.errors import CannotStart, Unauthenticated

_NONCE = 16
_HELLO = struct.Struct(f"<4sBI{_NONCE}s32s")
_MAGIC = b"crd1"
_STRANGER_TIMEOUT_S = 1.0
"""Time that a connection has to identify itself before the next one is served."""
_SIOCGIFADDR = 0x8915


class Purpose(IntEnum):
    """The purpose of a connection; there is one of each between neighbours."""

    CONTROL = 0
    LIFE = 1


@dataclass(frozen=True)
class Neighbours:
    """One rank's links in the tree, for one purpose."""

    rank: int
    ranks: int
    radix: int
    parent: Link | None
    children: tuple[Link, ...]
    """Links to the children, ascending by rank."""

    @property
    def links(self) -> tuple[Link, ...]:
        return self.children if self.parent is None else (self.parent, *self.children)

    def break_off(self) -> None:
        for link in self.links:
            link.break_off()

    def close(self) -> None:
        for link in self.links:
            link.close()


def connect(
    store: Store, rank: int, ranks: int, radix: int, *, prefix: str, interface: str = "", timeout_s: float = 60.0
) -> dict[Purpose, Neighbours]:
    """Connect this rank with its parent and children in the heap-ordered tree of ``radix``.

    ``prefix`` begins this job's keys in ``store``. ``interface`` is the name or address to listen on; by default it is
    the one through which ``MASTER_ADDR`` is reached. Raises CannotStart if a rank does not come within ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    secret = _secret(store, rank, prefix)
    children = tree_children(rank, ranks, radix)
    listener = None
    if children:
        listener = _listen(address_of(interface), 2 * len(children))
        host, port = listener.getsockname()[:2]
        store.set(f"{prefix}/address/{rank}", f"{host}:{port}")
    try:
        upward = {}
        if rank != COORDINATOR:
            parent = tree_parent(rank, radix)
            upward = {purpose: _call(store, prefix, rank, parent, purpose, secret, deadline) for purpose in Purpose}
        downward = _answer(listener, children, secret, deadline) if listener is not None else {}
    finally:
        if listener is not None:
            listener.close()
    return {
        purpose: Neighbours(
            rank, ranks, radix, upward.get(purpose), tuple(downward[purpose, child] for child in children)
        )
        for purpose in Purpose
    }


def address_of(interface: str) -> str:
    """Return the IPv4 address of an interface, given by name or by an address of its own. Raises CannotStart."""
    if not interface:
        return _address_towards(os.environ.get("MASTER_ADDR", "127.0.0.1"))
    try:
        return socket.inet_ntoa(socket.inet_aton(interface))
    except OSError:
        pass
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            address = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        except OSError as error:
            names = ", ".join(name for _, name in socket.if_nameindex())
            message = f"interface {interface!r}: no IPv4 address ({error}); this machine has {names}"
            raise CannotStart(message) from error
    return socket.inet_ntoa(address[20:24])


def _address_towards(host: str) -> str:
    """Return the address that this machine uses to reach ``host``; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
            return str(probe.getsockname()[0])
        except OSError as error:
            raise CannotStart(f"cannot tell which interface reaches {host!r}: {error}; name one") from error


def _secret(store: Store, rank: int, prefix: str) -> bytes:
    if rank == COORDINATOR:
        store.set(f"{prefix}/secret", secrets.token_hex(32))
    try:
        return bytes(store.get(f"{prefix}/secret"))
    except Exception as error:  # Each store has a time-out error of its own.
        raise CannotStart(f"rank 0 has not started: {error}") from error


def _listen(address: str, backlog: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((address, 0))
    listener.listen(min(backlog, socket.SOMAXCONN))
    return listener


def _call(
    store: Store, prefix: str, rank: int, parent: int, purpose: Purpose, secret: bytes, deadline: float
) -> Link:
    try:
        host, _, port = bytes(store.get(f"{prefix}/address/{parent}")).decode().rpartition(":")
        connected = socket.create_connection((host, int(port)), max(deadline - time.monotonic(), 0.1))
    except Exception as error:  # An error of the store or of the socket.
        raise CannotStart(f"rank {rank} does not reach rank {parent}: {error}") from error
    try:
        connected.settimeout(max(deadline - time.monotonic(), 0.1))
        theirs, mine = _exactly(connected, _NONCE), secrets.token_bytes(_NONCE)
        proof = _proof(secret, b"child", theirs, mine, rank, purpose)
        connected.sendall(_HELLO.pack(_MAGIC, purpose, rank, mine, proof))
        if not hmac.compare_digest(_exactly(connected, 32), _proof(secret, b"parent", theirs, mine, rank, purpose)):
            raise Unauthenticated(f"what listens at {host}:{port} is not rank {parent} of this job")
    except OSError as error:
        connected.close()
        raise CannotStart(f"rank {rank}: rank {parent} at {host}:{port} did not answer: {error}") from error
    except Unauthenticated:
        connected.close()
        raise
    connected.settimeout(None)
    return Link(connected, parent)


def _answer(
    listener: socket.socket, children: tuple[int, ...], secret: bytes, deadline: float
) -> dict[tuple[Purpose, int], Link]:
    """Return links by purpose and child; connections that cannot prove that they belong to the job are closed."""
    answer: dict[tuple[Purpose, int], Link] = {}
    wanted = {(purpose, child) for purpose in Purpose for child in children}
    while len(answer) < len(wanted):
        listener.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            connected, _ = listener.accept()
        except OSError as error:
            absent = sorted({child for _, child in wanted - answer.keys()})
            raise CannotStart(f"ranks {absent[:12]} have not connected in time") from error
        caller = _admit(connected, secret)
        if caller is None or caller not in wanted or caller in answer:
            connected.close()
        else:
            answer[caller] = Link(connected, caller[1])
    return answer


def _admit(connected: socket.socket, secret: bytes) -> tuple[Purpose, int] | None:
    """Return the caller's purpose and rank if it knows the secret, else None."""
    try:
        connected.settimeout(_STRANGER_TIMEOUT_S)
        mine = secrets.token_bytes(_NONCE)
        connected.sendall(mine)
        magic, purpose, rank, theirs, proof = _HELLO.unpack(_exactly(connected, _HELLO.size))
        if magic != _MAGIC or purpose not in (Purpose.CONTROL, Purpose.LIFE):
            return None
        if not hmac.compare_digest(proof, _proof(secret, b"child", mine, theirs, rank, purpose)):
            return None
        connected.sendall(_proof(secret, b"parent", mine, theirs, rank, purpose))
        connected.settimeout(None)
    except OSError:
        return None
    return Purpose(purpose), rank


def _proof(secret: bytes, side: bytes, server: bytes, client: bytes, rank: int, purpose: int) -> bytes:
    return hmac.digest(secret, b"|".join((side, server, client, b"%d %d" % (rank, purpose))), "sha256")


def _exactly(connected: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        got = connected.recv(size - len(data))
        if not got:
            raise ConnectionError("the connection was closed during the handshake")
        data += got
    return data
