"""A network that is slow on purpose: a Linux namespace for each host, and a switch in user space that delays frames.

Needs root, ``ip`` (Debian: iproute2) and ``/dev/net/tun``; no kernel module that virtual machines lack. The switch is
one Python process, so a delay is late by what a timer is late, some 0.1 ms: it is for delays of 2 ms and more.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_TAP_WITHOUT_HEADER = 0x0002 | 0x1000
_DEVICE = "coordsim0"
_LARGEST_FRAME = 65_000
"""Payload of a frame. With frames of the usual size a message of 40 kB takes the switch 4 ms, and several TCP
windows."""
_FRAME_BYTES = 1 << 17
_EVERYBODY = b"\xff" * 6
_SUBNET = "10.213.77"


def unavailable() -> str | None:
    """Return why no network can be emulated here; None if it can."""
    if os.geteuid():
        return "it needs root"
    if shutil.which("ip") is None:
        return "it needs ip (Debian: apt-get install iproute2)"
    if not Path("/dev/net/tun").exists():
        return "it needs /dev/net/tun"
    probe = f"coordsim-{os.getpid()}-probe"
    try:
        _ip("netns", "add", probe)
        _ip("netns", "delete", probe)
    except RuntimeError as error:  # as in a container whose root may not
        return str(error)
    return None


def address(host: int) -> str:
    """Return the address of a host in its namespace."""
    return f"{_SUBNET}.{host + 1}"


def inside(name: str, command: Sequence[str]) -> list[str]:
    """Return ``command`` as a process on the host ``name``."""
    return ["ip", "netns", "exec", name, *command]


@contextmanager
def network(hosts: int, delay_s: float) -> Iterator[list[str]]:
    """Yield names of ``hosts`` namespaces whose frames reach each other after ``delay_s``.

    Everything is removed at the end, however it ends. Raises RuntimeError, OSError.
    """
    names = [f"coordsim-{os.getpid()}-{host}" for host in range(hosts)]
    switch = 0
    try:
        taps = [_host(name, host) for host, name in enumerate(names)]
        switch = os.fork()
        if not switch:
            _serve(taps, delay_s)
        for tap in taps:
            os.close(tap)
        yield names
    finally:
        if switch:
            os.kill(switch, signal.SIGKILL)
            os.waitpid(switch, 0)
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL, check=False)


def one_way_us(names: Sequence[str]) -> float:
    """Return the measured time of a byte between the first two hosts. Raises RuntimeError."""
    ping = [sys.executable, "-m", "real_backend.launches.ping", address(1)]
    with subprocess.Popen(inside(names[1], [*ping, "serve"])) as serving:
        asked = subprocess.run(inside(names[0], [*ping, "ask"]), capture_output=True, text=True, check=False)
        if asked.returncode:
            serving.kill()
            raise RuntimeError(f"the emulated network does not carry: {asked.stderr.strip()[-200:]}")
    return float(asked.stdout)


def _host(name: str, host: int) -> int:
    """Make a namespace with one device; return the device's other end."""
    _ip("netns", "add", name)
    tap = _tap(name)
    _ip("-n", name, "address", "add", f"{address(host)}/24", "dev", _DEVICE)
    for device in ("lo", _DEVICE):
        _ip("-n", name, "link", "set", device, "mtu", str(_LARGEST_FRAME), "up")
    return tap


def _ip(*arguments: str) -> None:
    ended = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {ended.stderr.strip()}")


def _tap(name: str) -> int:
    """A device belongs to the namespace of the thread that makes it; its descriptor to the process."""
    opened: list[int | OSError] = []

    def make() -> None:
        try:
            place = os.open(f"/run/netns/{name}", os.O_RDONLY)
            if ctypes.CDLL(None, use_errno=True).setns(place, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            os.close(place)
            tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH14x", _DEVICE.encode(), _TAP_WITHOUT_HEADER))
            opened.append(tap)
        except OSError as error:
            opened.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(opened[0], OSError):
        raise opened[0]
    return opened[0]


def _serve(taps: Sequence[int], delay_s: float) -> None:
    """Pass frames on, each ``delay_s`` after it arrived, until the process is killed."""
    try:
        ports: dict[bytes, int] = {}
        waiting: list[tuple[float, int, int, bytes]] = []
        number = 0
        while True:
            now = time.monotonic()
            while waiting and waiting[0][0] <= now:
                _, _, tap, frame = heapq.heappop(waiting)
                _write(tap, frame)
            left = waiting[0][0] - time.monotonic() if waiting else None
            for tap in select.select(taps, [], [], None if left is None else max(left, 0.0))[0]:
                frame = os.read(tap, _FRAME_BYTES)
                target, source = frame[:6], frame[6:12]
                ports[source] = tap
                known = None if target == _EVERYBODY else ports.get(target)
                for other in [known] if known is not None else [each for each in taps if each != tap]:
                    number += 1
                    heapq.heappush(waiting, (time.monotonic() + delay_s, number, other, frame))
    finally:
        os._exit(1)


def _write(tap: int, frame: bytes) -> None:
    """Write a frame to a device. A device that cannot take it loses it, as a real one does."""
    try:
        os.write(tap, frame)
    except OSError:
        return
