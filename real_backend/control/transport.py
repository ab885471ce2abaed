"""What the background loop asks of the network between the ranks. Nothing here knows of tensors."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from coordsim.protocol.negotiator import Exchange
from coordsim.protocol.startup import StartExchange


class Sent(NamedTuple):
    """What a rank has sent over its control links in one cycle; without small reductions' own messages."""

    messages: int
    nbytes: int
    """Their payloads, what travelled with a bit vector included."""
    rings: int
    """Neighbours that were woken, by a message without payload each."""


NOTHING_SENT = Sent(0, 0, 0)


class ControlTransport(Protocol):
    """One rank's end. Every method but :meth:`break_off` is called by the background thread alone."""

    rank: int
    ranks: int
    rings: bool
    """Whether it can wake ranks that sleep; without it the loop needs a cycle time."""

    def enter(self, cycle: int, wake: bool) -> None:
        """This rank enters its ``cycle``-th cycle; ``wake`` the neighbours that are not in it yet."""
        ...

    def answer(self, exchange: Exchange | StartExchange) -> Any:
        """Perform one exchange and return what the negotiator is to be sent.

        Raises ConnectionError when a neighbour is gone, ProtocolError when it says what makes no sense.
        """
        ...

    def wait(self, timeout_s: float | None, doorbell: int) -> bool:
        """Sleep until another rank has entered the next cycle (True), the file descriptor ``doorbell`` can be
        read, or the time is over. Only where :attr:`rings`."""
        ...

    def sent(self) -> Sent | None:
        """Since :meth:`enter`; None where another library sends."""
        ...

    def break_off(self) -> None:
        """From any thread: whatever blocks in here raises ConnectionError, now and for ever."""
        ...

    def close(self) -> None:
        """After the last cycle."""
        ...
