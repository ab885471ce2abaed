"""A small scenario on disk, and a way to change one key of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from coordsim.errors import InputError, Problem
from coordsim.scenario import load_scenario
from tests.small import write_small


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A scenario of four tensors on two Summit nodes."""
    return write_small(tmp_path, "steps = 5\nseed = 7")


Refuse = Callable[..., list[Problem]]


@pytest.fixture
def refused() -> Refuse:
    """Load what must fail, and return the mistakes."""

    def load(*args: object, **changes: object) -> list[Problem]:
        with pytest.raises(InputError) as caught:
            load_scenario(*args, **changes)  # type: ignore[arg-type]
        return caught.value.problems

    return load
