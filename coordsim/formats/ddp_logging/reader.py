"""Finds the dicts in a file, and checks the values that are used.

PyTorch joins a map of strings and a map of whole numbers (``torch/csrc/distributed/c10d/logger.cpp``), so a list of
sizes is a string, ``"271392, 66560"``. Users print the dict, or save it as JSON, one rank a file or all in one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from coordsim.errors import InputError
from coordsim.formats.shared.python_literal import literal
from coordsim.formats.shared.small_files import small_text

EXPECTED = "expected what DDP's _get_ddp_logging_data() returns: a dict with bucket_sizes, printed or as JSON"
LARGEST_FILE = 1 << 26
LONGEST_DICT = 1 << 20
MOST_DICTS = 100_000
MOST_BUCKETS = 100_000
KEY = re.compile(r"""["']bucket_sizes["']\s*:""")
"""The key by which such a dict is recognised."""
_TOKEN = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[{}]""", re.DOTALL)
_TIMES = {
    "forward_s": "avg_forward_compute_time",
    "backward_s": "avg_backward_compute_time",
    "communication_s": "avg_backward_comm_time",
    "overlap_s": "avg_backward_compute_comm_overlap_time",
}
_LARGEST = 1 << 62


@dataclass(frozen=True)
class Logged:
    """One dict. A value that it does not state is None."""

    path: Path
    rank: int | None
    world_size: int | None
    backend: str | None
    module: str | None
    iteration: int | None
    """Iteration of the last sample; 0 before training."""
    buckets: tuple[int, ...]
    """Bytes of each bucket as DDP's constructor made them, in the order in which they are reduced."""
    rebuilt: tuple[int, ...]
    """Bytes of each bucket as DDP rebuilt them after the first backward pass, in the order in which gradients were
    ready; else empty."""
    bucket_cap: int | None
    parameters: int | None
    parameter_bytes: int | None
    unused_bytes: int | None
    dtypes: str | None
    ready_order: tuple[int, ...]
    """Indices of parameters; empty if not stated."""
    by_bucket: tuple[tuple[int, ...], ...]
    """Indices of parameters in each rebuilt bucket; empty if not stated."""
    hook: str | None
    static_graph: bool
    times_s: dict[str, float | None]
    """Averages of the sampled iterations."""

    @property
    def in_use(self) -> tuple[int, ...]:
        """The buckets that were reduced last."""
        return self.rebuilt or self.buckets


def read_logged(path: Path) -> tuple[list[Logged], str | None]:
    """Return (the dicts in ``path``, what a cut removed). Raises InputError, with the key, if there is none."""
    text, lost = small_text(path, LARGEST_FILE, EXPECTED)
    logged: list[Logged] = []
    for place, part in _dicts(text):
        if part is None:
            lost = lost or f"the dict at character {place:,} has no closing brace"
            break
        if len(logged) == MOST_DICTS:
            _wrong(path, "", None, f"holds more than {MOST_DICTS:,} dicts")
        logged.append(_logged(path, _value(path, place, part)))
    if not logged:
        said = lost or (f"begins with {text.strip()[:12]!r}" if text.strip() else "is empty")
        _wrong(path, "", None, f"{said}; {EXPECTED}")
    return logged, lost


def _dicts(text: str) -> Iterator[tuple[int, str | None]]:
    """Yield (place, text) of each dict with bucket sizes; the text of one that does not end is None."""
    at = 0
    while (key := KEY.search(text, at)) is not None:
        start = text.rfind("{", at, key.start())
        if start < 0:
            at = key.end()
            continue
        end = _end(text, start)
        yield start, None if end is None else text[start:end]
        if end is None:
            return
        at = max(end, key.end())


def _end(text: str, start: int) -> int | None:
    """Return the place behind the brace that closes the one at ``start``.

    The result is None if that is cut off, or further than a dict is long.
    """
    depth = 0
    for token in _TOKEN.finditer(text, start, start + LONGEST_DICT):
        if token[0] in "{}":
            depth += 1 if token[0] == "{" else -1
            if depth == 0:
                return token.end()
    return None


def _value(path: Path, place: int, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = literal(text)
        except ValueError as error:
            _wrong(path, f"character {place:,}", text, f"is neither JSON nor a dict of Python ({error}); {EXPECTED}")
    if not isinstance(value, dict):
        _wrong(path, f"character {place:,}", text, f"is no dict; {EXPECTED}")
    return value


def _logged(path: Path, value: dict[str, Any]) -> Logged:
    sizes = _numbers(path, value, "rebuilt_bucket_sizes", signed=True)
    by_bucket = value.get("rebuilt_per_bucket_param_indices")
    parts = by_bucket.split(",") if isinstance(by_bucket, str) and by_bucket.strip() else []
    return Logged(
        path=path,
        rank=_number(path, value, "rank", 1 << 20),
        world_size=_number(path, value, "world_size", 1 << 20),
        backend=_text(value, "backend_name"),
        module=_text(value, "module_name"),
        iteration=_number(path, value, "iteration", _LARGEST),
        buckets=_numbers(path, value, "bucket_sizes", signed=True),
        rebuilt=sizes if value.get("has_rebuilt_buckets", 1) else (),
        bucket_cap=_number(path, value, "bucket_cap_bytes", _LARGEST),
        parameters=_number(path, value, "num_parameter_tensors", _LARGEST),
        parameter_bytes=_number(path, value, "total_parameter_size_bytes", _LARGEST),
        unused_bytes=_number(path, value, "unused_parameter_size", _LARGEST),
        dtypes=_text(value, "dtypes"),
        ready_order=_numbers(path, value, "prev_iteration_grad_ready_order_indices"),
        by_bucket=tuple(_split(path, "rebuilt_per_bucket_param_indices", part.split()) for part in parts),
        hook=_text(value, "comm_hook"),
        static_graph=bool(value.get("static_graph")),
        times_s={name: _seconds(path, value, key) for name, key in _TIMES.items()},
    )  # fmt: skip


def _text(value: dict[str, Any], key: str) -> str | None:
    text = value.get(key)
    return text[:200] if isinstance(text, str) and text and text != "N/A" else None


def _number(path: Path, value: dict[str, Any], key: str, most: int) -> int | None:
    number = value.get(key)
    if isinstance(number, str) and re.fullmatch(r"-?[0-9]{1,19}", number):
        number = int(number)
    if number is None:
        return None
    if type(number) is not int or not 0 <= number <= most:
        _wrong(path, key, number, f"is no whole number from 0 to {most:,}")
    return number


def _seconds(path: Path, value: dict[str, Any], key: str) -> float | None:
    """Return a time, which PyTorch counts in ns; 0 is the value before anything was measured."""
    number = _number(path, value, key, _LARGEST)
    return number / 1e9 if number else None


def _numbers(path: Path, value: dict[str, Any], key: str, *, signed: bool = False) -> tuple[int, ...]:
    """Return a list that PyTorch writes as text with commas; a list of numbers or a single number is accepted, too."""
    given = value.get(key)
    if given is None or given == "":
        return ()
    if isinstance(given, str):
        return _split(path, key, given.split(","), signed=signed)
    numbers = given if isinstance(given, list | tuple) else [given]
    return _split(path, key, [str(number) for number in numbers if type(number) is int or _refused(path, key, number)],
                  signed=signed)  # fmt: skip


def _refused(path: Path, key: str, value: Any) -> NoReturn:
    _wrong(path, key, value, "is no list of whole numbers")


def _split(path: Path, key: str, parts: list[str], *, signed: bool = False) -> tuple[int, ...]:
    if len(parts) > MOST_BUCKETS:
        _wrong(path, key, len(parts), f"{len(parts):,} values; no model has more than {MOST_BUCKETS:,}")
    pattern = r"-?[0-9]{1,19}" if signed else r"[0-9]{1,19}"
    for part in parts:
        if not re.fullmatch(pattern, part.strip()):
            _wrong(path, key, part, f"{part.strip()[:40]!r} is no whole number")
    return tuple(int(part) for part in parts)


def _wrong(path: Path, key: str, value: Any, message: str) -> NoReturn:
    raise InputError.one(str(path), key, str(value)[:80], message)
