"""The interface between the background loop and the network between ranks. It does not involve tensors."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from coordsim.protocol.negotiator import Exchange
from coordsim.protocol.startup import StartExchange


class Sent(NamedTuple):
    """What a rank has sent over its control links in one cycle, without small reductions' own messages."""

    messages: int
    nbytes: int
    """Payload bytes, including data that travelled with a bit vector."""
    rings: int
    """Number of neighbours that were woken, each by a message without payload."""


NOTHING_SENT = Sent(0, 0, 0)


class ControlTransport(Protocol):
    """One rank's end. Only the background thread calls its methods, except :meth:`break_off`."""

    rank: int
    ranks: int
    rings: bool
    """Whether it can wake ranks that sleep. Without this the loop needs a cycle time."""

    def enter(self, cycle: int, wake: bool) -> None:
        """Enter this rank's ``cycle``-th cycle; with ``wake``, wake the neighbours that are not in it yet."""
        ...

    def answer(self, exchange: Exchange | StartExchange) -> Any:
        """Perform one exchange and return the answer for the negotiator.

        Raises ConnectionError if a neighbour is gone, ProtocolError if it sends an invalid message.
        """
        ...

    def wait(self, timeout_s: float | None, doorbell: int) -> bool:
        """Sleep until another rank has entered the next cycle, ``doorbell`` can be read, or the time is over.

        Returns True in the first case. ``doorbell`` is a file descriptor. The method is only called where :attr:`rings`
        is true.
        """
        ...

    def sent(self) -> Sent | None:
        """Return what was sent since :meth:`enter`; None where another library sends."""
        ...

    def break_off(self) -> None:
        """Make every blocked or later call raise ConnectionError; may be called from any thread."""
        ...

    def close(self) -> None:
        """Close the connections, after the last cycle."""
        ...
