"""Errors a user can meet. Anything else that escapes is a bug."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

_LONGEST_PLACE = 200
_LONGEST_MESSAGE = 4000


def shortened(text: str, longest: int) -> str:
    """``text`` with dots for its middle where it has more than ``longest`` characters."""
    half = (longest - 3) // 2
    return text if len(text) <= longest else f"{text[:half]}...{text[-half:]}"


def nearest(value: object, allowed: tuple[str, ...]) -> str | None:
    """The allowed name closest to ``value``, or None when nothing is close."""
    found = get_close_matches(str(value), allowed, n=1, cutoff=0.5)
    return found[0] if found else None


@dataclass(frozen=True)
class Problem:
    """One mistake in the input: where it is, what was found, what would have been accepted."""

    where: str
    """File, flag or object that holds the mistake."""
    key: str
    """Dotted key inside it (``control_plane.cycle_time``), or ``""``."""
    value: Any
    message: str
    """What is wrong, without the location: ``needs a unit, such as "1ms"``."""
    allowed: tuple[str, ...] = ()

    def __str__(self) -> str:
        where, key = shortened(self.where, _LONGEST_PLACE), shortened(self.key, _LONGEST_PLACE)
        text = f"{where}: {key}: " if key else f"{where}: "
        text += shortened(self.message, _LONGEST_MESSAGE)
        if self.allowed:
            text += f"; allowed: {', '.join(self.allowed)}"
            guess = nearest(shortened(str(self.value), _LONGEST_PLACE), self.allowed)
            if guess is not None:
                text += f" (did you mean {guess!r}?)"
        return text


@dataclass(eq=False)
class InputError(Exception):
    """Bad input. Carries every mistake that was found; the command line exits with 2."""

    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def one(
        cls, where: str, key: str, value: Any, message: str, allowed: tuple[str, ...] = ()
    ) -> InputError:
        return cls([Problem(where, key, value, message, allowed)])

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class EnvironmentProblem(Exception):
    """The machine lacks something (an extra, a file system). The command line exits with 3."""


class Refused(InputError):
    """An engine cannot simulate this scenario exactly, and says why instead of approximating."""
