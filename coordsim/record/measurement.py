"""What a machine was measured to do: repeated timings by kind, size and ranks, with the host they were taken on.

``real_backend.measure`` writes it and :mod:`coordsim.analyse.calibrate` fits it; neither needs the other. One JSON
object, schema :data:`SCHEMA`; times are ns, sizes bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from coordsim.errors import InputError
from coordsim.record.files import whole_file

SCHEMA = "coordsim.measurement/1"

SOURCES = ("MEASURED", "RECORDED", "SIMULATED")
LARGEST = 10**15
"""Of a time (ns), a size or a number: beyond it is a mistake."""
KINDS = {
    "ping": "round trip of one link, two ranks; `count` messages go one way and one small one comes back",
    "and": "AND of a bit vector of `nbytes`, from the last rank's entrance to the last one's exit",
    "round": "lists of `nbytes` gathered to rank 0, then as many broadcast; from last entrance to last exit",
    "allreduce": "one float32 tensor of `nbytes` averaged; `path` says by what",
    "collective": "a torch backend's collective of `nbytes`, last entrance to last exit; `path` is BACKEND/OPERATION",
    "collective_cpu": "CPU time of one rank for one such call, all its threads; a sample is the mean of all ranks",
    "sleep": "how much longer than asked a sleep of 1 ms takes",
    "compute": "one fixed computation, all ranks at once; a series is one rank's, in order",
    "step": "of a recorded run: from a step's begin to the rank's last submission, in order of steps",
    "detour": "of a recorded run, or of the smallest AND: the same exchange again and again, in order",
    "copy": "copy of `nbytes` in memory",
    "coordinator": "CPU of rank 0's protocol code for one slow cycle in which `ranks` ask for `count` tensors each",
    "hits": "CPU of a rank's protocol code for one cycle in which `count` tensors are agreed by the cache",
    "exchange": "of a recorded run: a fast cycle, last entrance to last exit, less rank 0's work",
    "work": "of a recorded run: rank 0's work in a slow cycle with `count` requests",
}
"""What a series may be of."""


@dataclass(frozen=True, slots=True)
class Series:
    """The same thing, timed again and again."""

    what: str
    """One of :data:`KINDS`."""
    ranks: int
    samples_ns: tuple[float, ...]
    """In the order in which they were taken."""
    nbytes: int = 0
    count: int = 1
    path: str = ""
    rank: int = -1
    """Whose it is; -1: of all ranks together."""
    node: str = ""
    """Where that rank ran."""


@dataclass(frozen=True)
class Measurement:
    """Series, and what is known of where they come from."""

    source: str
    """One of :data:`SOURCES`: timed for this purpose, a real run, a simulated one."""
    host: dict[str, Any]
    """Name, CPU, cores, load, versions."""
    taken: dict[str, Any]
    """When, how long it took, in which plan."""
    series: tuple[Series, ...]
    missing: dict[str, str] = field(default_factory=dict)
    """Kinds that were not measured, and why."""

    @property
    def cores(self) -> int:
        """0: not known, so nothing is taken for oversubscribed."""
        return int(self.host.get("cores") or 0)

    def oversubscribed(self, ranks: int) -> bool:
        """Whether so many ranks had to share cores: what they measured is no latency."""
        return 0 < self.cores < ranks

    def of(self, what: str, path: str | None = None, *, crowded: bool = False) -> Iterator[Series]:
        """Series of one kind; those of ranks that shared cores only if ``crowded``."""
        for each in self.series:
            if each.what == what and (path is None or each.path == path):
                alone = what in ("coordinator", "hits", "copy")
                if crowded or alone or not self.oversubscribed(each.ranks):
                    yield each


def as_json(measurement: Measurement) -> dict[str, Any]:
    """The JSON object."""
    return {
        "schema": SCHEMA, "source": measurement.source, "host": measurement.host, "taken": measurement.taken,
        "missing": measurement.missing,
        "series": [
            {**asdict(each), "oversubscribed": measurement.oversubscribed(each.ranks)} for each in measurement.series
        ],
    }  # fmt: skip


def write_measurement(path: Path, measurement: Measurement) -> None:
    """Whole or not at all. Raises OSError."""
    with whole_file(path) as fresh:
        fresh.write_text(json.dumps(as_json(measurement), allow_nan=False) + "\n", encoding="utf-8")


def read_measurement(path: Path) -> Measurement:
    """Raises InputError for what is no measurement, naming file, key and value."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError.one(str(path), "", None, f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError.one(str(path), "", None, f"not JSON: {error}") from error
    return from_json(found, str(path))


def from_json(found: Any, where: str) -> Measurement:
    """The measurement in a JSON object; ``where`` names it in errors. Raises InputError."""
    if not isinstance(found, dict):
        raise InputError.one(where, "", None, "not a JSON object")
    if found.get("schema") != SCHEMA:
        given = found.get("schema")
        raise InputError.one(where, "schema", given, f"schema {given!r} is no measurement's", (SCHEMA,))
    for key, kind in (("host", dict), ("taken", dict), ("series", list), ("missing", dict), ("source", str)):
        if not isinstance(found.get(key), kind):
            raise InputError.one(where, key, found.get(key), f"is missing, or not a {kind.__name__}")
    if found["source"] not in SOURCES:
        raise InputError.one(where, "source", found["source"], f"unknown {found['source']!r}", SOURCES)
    cores = found["host"].get("cores")
    if not isinstance(cores, int) or isinstance(cores, bool) or cores < 0:
        raise InputError.one(where, "host.cores", cores, f"{cores!r} is not a number of cores")
    series = tuple(_series(each, where, f"series[{index}]") for index, each in enumerate(found["series"]))
    if not series:
        raise InputError.one(where, "series", [], "has no series: nothing was measured")
    return Measurement(found["source"], found["host"], found["taken"], series, found["missing"])


_TOGETHER = ("ping", "and", "round", "allreduce", "exchange", "collective", "collective_cpu")
"""Kinds that one rank alone does not have."""
_FIELDS = {each.name for each in fields(Series)}


def _series(found: Any, where: str, key: str) -> Series:
    if not isinstance(found, Mapping):
        raise InputError.one(where, key, found, "not an object")
    what = found.get("what")
    if what not in KINDS:
        raise InputError.one(where, f"{key}.what", what, f"{what!r} is no kind of series", tuple(KINDS))
    for name, least in (("ranks", 2 if what in _TOGETHER else 1), ("nbytes", 0), ("count", 0), ("rank", -1)):
        value = found.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= LARGEST:
            raise InputError.one(where, f"{key}.{name}", value, f"{value!r} is not a whole number of at least {least}")
    for name in ("path", "node"):
        if not isinstance(found.get(name), str):
            raise InputError.one(where, f"{key}.{name}", found.get(name), f"{found.get(name)!r} is not text")
    samples = found.get("samples_ns")
    if not isinstance(samples, list) or not samples:
        raise InputError.one(where, f"{key}.samples_ns", samples, "has no samples")
    for value in samples:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not 0 <= value <= LARGEST:
            raise InputError.one(where, f"{key}.samples_ns", value, f"{value!r} is not a time in ns")
    kept = {name: value for name, value in found.items() if name in _FIELDS}
    return Series(**{**kept, "samples_ns": tuple(samples)})
