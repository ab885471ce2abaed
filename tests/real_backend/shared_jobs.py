"""Jobs that several tests look at: each runs once, and is not tried again when it fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from tests.real_backend.processes import run


def once(ranks: int, function: Callable[[], Any], env: Mapping[str, str] | None = None) -> list[Any]:
    """What ``function`` returned on each rank, as :func:`run` does it."""
    results, failure = _outcome(ranks, function, tuple(sorted((env or {}).items())))
    assert not failure, failure
    return results


@cache
def _outcome(ranks: int, function: Callable[[], Any], env: tuple[tuple[str, str], ...]) -> tuple[list[Any], str]:
    try:
        return run(ranks, function, env=dict(env)), ""
    except AssertionError as failure:
        return [], str(failure)
