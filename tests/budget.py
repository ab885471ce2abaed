"""How many examples property tests take: few in the usual run, many with ``--hypothesis-profile=long``, as CI has it.

    python -m pytest -m "long or hypothesis" --hypothesis-profile=long
"""

from __future__ import annotations

from hypothesis import settings

USUAL, LONG = 25, 100
"""Of a test that asks for no number."""
FEWEST = 10


def examples(number: int) -> int:
    """``number`` in the long run, a quarter of it otherwise."""
    return number if settings.default.max_examples >= LONG else max(number // 4, min(number, FEWEST))


def register() -> None:
    """Make both profiles known; without ``--hypothesis-profile`` the usual one is taken."""
    settings.register_profile("usual", deadline=None, max_examples=USUAL)
    settings.register_profile("long", deadline=None, max_examples=LONG)
    settings.load_profile("usual")
