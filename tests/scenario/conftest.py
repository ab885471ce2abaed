"""A small scenario on disk, and a way to change one key of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from coordsim.errors import InputError, Problem
from coordsim.scenario import load_scenario

SMALL_CSV = """name,shape,dtype,layer,registration,ready
fc.bias,10,float32,fc,3,1000000
fc.weight,10x64,float32,fc,2,2000000
conv.bias,64,float32,conv,1,3500000
conv.weight,64x3x7x7,float32,conv,0,5000000
"""

SMALL_TOML = """ranks = 12
steps = 5
seed = 7
cluster = "summit"

[workload]
name = "small"
tensors = "small.csv"
forward = "3ms"
optimizer = "0.5ms"
batch = 32

[control_plane]
name = "cached"
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A scenario of four tensors on two Summit nodes."""
    (tmp_path / "small.csv").write_text(SMALL_CSV)
    path = tmp_path / "small.toml"
    path.write_text(SMALL_TOML)
    return path


Refuse = Callable[..., list[Problem]]


@pytest.fixture
def refused() -> Refuse:
    """Load what must fail, and return the mistakes."""

    def load(*args: object, **changes: object) -> list[Problem]:
        with pytest.raises(InputError) as caught:
            load_scenario(*args, **changes)  # type: ignore[arg-type]
        return caught.value.problems

    return load
