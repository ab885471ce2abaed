"""Negotiation alone: 64 processes without torch agree through a star and a tree, fast path after the first step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def negotiate(ranks: int, folder: Path, steps: int, tensors: int, loop: str, **env: str) -> list[dict[str, Any]]:
    """What each rank printed, by rank."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.real_backend.alone", *map(str, (ranks, folder, steps, tensors, loop))],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, **env}, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return sorted(map(json.loads, done.stdout.splitlines()), key=lambda each: int(each["rank"]))


@pytest.mark.parametrize(("radix", "loop"), [("0", "wake"), ("4", "wake"), ("0", "20000000")])
def test_64_ranks_without_torch(radix: str, loop: str, tmp_path: Path) -> None:
    steps, tensors = 5, 40
    found = negotiate(64, tmp_path, steps, tensors, loop, COORDSIM_RADIX=radix)
    assert [each["rank"] for each in found] == list(range(64))
    assert not any(each["torch"] for each in found)
    assert {each["after"] for each in found} == {found[0]["after"]}
    for each in found:
        counters = each["counters"]
        assert counters["tensors"] == steps * tensors
        assert counters["hits"] == (steps - 1) * tensors
        assert 1 <= counters["slow_cycles"] <= 64
