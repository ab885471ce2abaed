"""The dicts of one job's ranks as a workload: a gradient for each bucket, in the order in which they are reduced."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coordsim.errors import InputError
from coordsim.formats.ddp_logging.reader import Logged, read_logged
from coordsim.formats.imported import Gradient, Imported, workload_csv
from coordsim.formats.shared.repeated_messages import LARGEST_BYTES
from coordsim.formats.shared.sources import names_in_job
from coordsim.formats.shared.torch_types import TYPES

FORMAT = "ddp-logging"
_UNKNOWN = {
    "run": "it holds averages and sizes, no times of steps",
    "ready": "when a bucket is ready is not recorded; simulate spreads backward over buckets by their bytes",
    "names": "parameters are told by their index only; a gradient here is a whole bucket",
}
_MOST_RANKS = 64
"""Largest number of ranks whose averages are listed."""


def import_logging_data(paths: list[Path]) -> Imported:
    """Read the dicts of one job. Raises InputError for files without such a dict, and for dicts of different jobs."""
    dicts: list[Logged] = []
    lost: tuple[Path, str] | None = None
    for path in paths:
        logged, cut = read_logged(path)
        dicts += logged
        if cut is not None and lost is None:
            lost = path, cut
    _one_job(dicts)
    ranks = _latest_of_each_rank(dicts)
    used = max(ranks, key=lambda logged: (bool(logged.rebuilt), logged.iteration or 0, -(logged.rank or 0)))
    unknown = dict(_UNKNOWN)
    gradients = _gradients(used, unknown)
    _add_reasons(unknown, used, ranks)
    if lost is not None:
        unknown["cut"] = f"{lost[0].name} is cut off: {lost[1]}"
    files = names_in_job(paths)
    csv = workload_csv(gradients) if gradients else None
    return Imported(FORMAT, files, _summary(used, ranks, len(dicts)), unknown, workload_csv=csv)


def _one_job(dicts: Sequence[Logged]) -> None:
    """Raise InputError if dicts contradict each other."""
    first = dicts[0]
    for logged in dicts:
        for key in ("world_size", "backend", "parameters", "parameter_bytes"):
            mine, theirs = getattr(logged, key), getattr(first, key)
            if mine != theirs:
                where = names_in_job([first.path, logged.path])[0] if first.path != logged.path else "the first dict"
                message = f"{mine!r}, where it is {theirs!r} in {where}: another job, or another model of it?"
                raise InputError.one(str(logged.path), key, mine, message)


def _latest_of_each_rank(dicts: Sequence[Logged]) -> list[Logged]:
    """Return the last dict of each rank, since a rank may have printed several. Dicts without a rank are all kept."""
    latest: dict[Any, Logged] = {}
    for place, logged in enumerate(dicts):
        key = ("", place) if logged.rank is None else logged.rank
        before = latest.get(key)
        if before is None or (before.iteration or 0) <= (logged.iteration or 0):
            latest[key] = logged
    return sorted(latest.values(), key=lambda logged: -1 if logged.rank is None else logged.rank)


def _gradients(used: Logged, unknown: dict[str, str]) -> list[Gradient]:
    sizes = used.in_use
    wrong = next((size for size in sizes if not 0 < size <= LARGEST_BYTES), None)
    if not sizes:
        unknown["workload"] = "bucket_sizes is empty: DDP had no parameter that needs a gradient"
        return []
    if wrong is not None:
        why = "PyTorch counted it in 32 bits" if wrong < 0 else "no message has such a size"
        unknown["workload"] = f"a bucket of {wrong:,} bytes: {why}"
        return []
    dtype, width = TYPES.get((used.dtypes or "").lower(), ("", 0))
    counted = bool(width) and all(size % width == 0 for size in sizes)
    return [
        Gradient(f"bucket.{place}", size // width if counted else 0, dtype if counted else "", size)
        for place, size in enumerate(sizes)
    ]


def _add_reasons(unknown: dict[str, str], used: Logged, ranks: Sequence[Logged]) -> None:
    if not used.rebuilt:
        unknown["rebuilt"] = (
            "the buckets are those that DDP was made with; after the first backward pass it makes them anew, in the "
            "order in which gradients were ready, and notes them in the next iteration that it samples"
        )
    total = sum(used.in_use)
    if used.parameter_bytes is not None and total != used.parameter_bytes and "workload" not in unknown:
        unknown["other_bytes"] = f"buckets hold {total:,} B of the {used.parameter_bytes:,} B of parameters"
    if used.hook is not None:
        unknown["sent"] = f"a communication hook ({used.hook[:80]}) may send other sizes than those of the gradients"
    if not any(any(logged.times_s.values()) for logged in ranks):
        unknown["times"] = "no iteration was sampled yet" if not used.iteration else "no average of times is in it"
    alike = [logged for logged in ranks if bool(logged.rebuilt) == bool(used.rebuilt)]
    others = [logged.rank for logged in alike if logged.in_use != used.in_use]
    if others:
        unknown["other_ranks"] = f"rank {others[0]} has other buckets than rank {used.rank}, whose buckets these are"


def _summary(used: Logged, ranks: Sequence[Logged], dicts: int) -> dict[str, Any]:
    return {
        "dicts": dicts,
        "ranks": used.world_size,
        "ranks_in_it": sorted({logged.rank for logged in ranks if logged.rank is not None}) or None,
        "backend": used.backend,
        "module": used.module,
        "iteration": used.iteration,
        "buckets": len(used.in_use),
        "buckets_rebuilt": bool(used.rebuilt),
        "bucket_bytes": list(used.in_use),
        "constructed_bucket_bytes": list(used.buckets),
        "bucket_cap_bytes": used.bucket_cap,
        "parameters": used.parameters,
        "parameter_bytes": used.parameter_bytes,
        "unused_parameter_bytes": used.unused_bytes,
        "dtypes": used.dtypes,
        "static_graph": used.static_graph,
        "communication_hook": used.hook or "none",
        "ready_order": list(used.ready_order) or None,
        "parameters_by_bucket": [list(indices) for indices in used.by_bucket] or None,
        "averages_by_rank": [
            {"rank": logged.rank, **logged.times_s} for logged in ranks[:_MOST_RANKS] if any(logged.times_s.values())
        ] or None,
    }  # fmt: skip
