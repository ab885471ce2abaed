"""Recordings of PyTorch for tests: real ones, and copies with something changed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data" / "torch_traces"
KINETO = (DATA / "kineto_rank0.json.gz", DATA / "kineto_rank1.json.gz")
CHAKRA = (DATA / "chakra_rank0.json.gz", DATA / "chakra_rank1.json.gz")
FLIGHT = (DATA / "flight_rank0.pickle", DATA / "flight_rank1.pickle")
FLIGHT_JSON = DATA / "flight_rank0.json"


def loaded(path: Path) -> dict[str, Any]:
    """The whole file as Python's own reader sees it."""
    data = path.read_bytes()
    found = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    assert isinstance(found, dict)
    return found


def changed(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A plain copy of ``source`` with its object changed in place."""
    found = loaded(source)
    change(found)
    target.write_text(json.dumps(found))
    return target
