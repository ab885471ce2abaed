"""Ports for servers that cannot choose one themselves."""

from __future__ import annotations

import random
import socket

BELOW_EPHEMERAL = range(20_000, 32_000)
"""The kernel takes none of these for a connection that somebody makes between our look and the server's start."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now. Raises OSError."""
    for port in random.sample(BELOW_EPHEMERAL, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port among 100 of 127.0.0.1")
