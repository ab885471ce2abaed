"""Runs to export, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.formats.runs import record, store


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three real ranks, five steps."""
    return record(tmp_path_factory.mktemp("recorded") / "job")


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four simulated ranks, a cold step and three more."""
    return store(tmp_path_factory.mktemp("simulated") / "run")
