"""The measured time of a byte over an emulated network: ``python -m real_backend.launches.ping ADDRESS serve|ask``."""

from __future__ import annotations

import socket
import statistics
import sys
import time

PORT = 29578
TIMES = 50
PATIENCE_S = 10.0


def serve(address: str) -> None:
    """Answer one caller until it is gone."""
    with socket.create_server((address, PORT)) as listening:
        listening.settimeout(PATIENCE_S)
        with listening.accept()[0] as caller:
            caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := caller.recv(16):
                caller.sendall(data)


def ask(address: str) -> float:
    """Return the median time of one way, us."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            connected = socket.create_connection((address, PORT))
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    times = []
    with connected:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(TIMES):
            began = time.perf_counter()
            connected.sendall(b"x")
            connected.recv(16)
            times.append(time.perf_counter() - began)
    return statistics.median(times) / 2 * 1e6


if __name__ == "__main__":
    if sys.argv[2] == "serve":
        serve(sys.argv[1])
    else:
        print(ask(sys.argv[1]))
