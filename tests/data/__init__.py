"""Recorded data that the tests use."""

from pathlib import Path

HOROVOD_RUNS = Path(__file__).parent / "horovod_runs"
