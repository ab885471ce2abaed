"""Compiled inner loops of readers. Integers only; each has a reference it is tested against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(function: _F) -> _F:
    """Compile with numba and keep the machine code on disk, so that only a machine's first run waits.

    It may make arrays, also where an :func:`inlined` function calls it (``_nrt`` would be the caller's).
    """
    jitted: _F = numba.njit(cache=True, nogil=True, error_model="numpy", _nrt=True)(function)
    return jitted


def inlined(function: _F) -> _F:
    """As :func:`compiled`, for a part of a loop that makes no array: the caller's machine code takes it in.

    Without numba's reference counts, which cost more than the loop does: its arrays are the caller's.
    """
    jitted: _F = numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True, _nrt=False)(function)
    return jitted
