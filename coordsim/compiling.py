"""How inner loops are compiled: of readers, and of engines. Integers only; each has a reference it is tested against.

Groups of arrays come as named tuples. What a compiled function takes from another file, numbers and inlined functions,
is in its machine code, and numba's cache on disk looks at the function's own file alone: who changes such a thing
deletes the cache (``coordsim doctor`` says where it is).
"""

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


def borrowing(function: _F) -> _F:
    """As :func:`compiled`, for a loop that makes no array: all are the caller's, in named tuples or alone.

    Without numba's reference counts, which would be kept at every use of a tuple's array and cost more than the loop.
    """
    jitted: _F = numba.njit(cache=True, nogil=True, error_model="numpy", _nrt=False)(function)
    return jitted


def inlined(function: _F) -> _F:
    """As :func:`borrowing`, for a part of a loop: the caller's machine code takes it in."""
    jitted: _F = numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True, _nrt=False)(function)
    return jitted
