"""Where the compiled engine is kept between runs, and whether it has been compiled."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import coordsim

_SUFFIXES = (".nbi", ".nbc")  # numba's index and machine code


@dataclass(frozen=True)
class KernelCache:
    """State of numba's on-disk cache for this package."""

    directory: str
    writable: bool
    kernels: int
    """Number of compiled versions, one for each signature."""
    nbytes: int


def kernel_cache() -> KernelCache:
    """Examine the directory that numba uses: NUMBA_CACHE_DIR, beside the source, or the user's cache directory."""
    package = Path(coordsim.__file__).parent
    configured = os.environ.get("NUMBA_CACHE_DIR")
    if configured:
        place = Path(configured)
    elif os.access(package, os.W_OK):
        place = package
    else:
        place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "numba"
    files = list(_cached(place))
    code = sum(path.suffix == ".nbc" for path in files)
    return KernelCache(str(place), _writable(place), code, sum(path.stat().st_size for path in files))


def title(doing: str) -> str:
    """Return ``doing``, with a remark if the engine has to be compiled first."""
    return doing if kernel_cache().kernels else f"compiling (once), then {doing}"


def _cached(place: Path) -> Iterator[Path]:
    for path in place.rglob("*"):
        if path.suffix in _SUFFIXES:
            yield path


def _writable(place: Path) -> bool:
    """Return whether ``place``, or the first of its parents that exists, can be written."""
    while not place.exists() and place != place.parent:
        place = place.parent
    return os.access(place, os.W_OK)
