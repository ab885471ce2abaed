"""Sizes of types stand in one place; the protocol, which knows no other room, agrees with it."""

from __future__ import annotations

import numpy as np

from coordsim.dtypes import ELEMENT_BYTES
from coordsim.mixing import GOLDEN, mixed
from coordsim.protocol.messages import DType


def test_the_protocols_sizes_are_the_same():
    assert {kind.name.lower(): kind.nbytes for kind in DType}.items() <= ELEMENT_BYTES.items()


def test_sizes_are_numpys_where_numpy_has_the_type():
    known = {name: size for name, size in ELEMENT_BYTES.items() if not name.startswith(("bfloat", "float8"))}
    assert {name: np.dtype(name).itemsize for name in known} == known


def test_mixed_is_splitmix64():
    """The first three outputs of the generator from state 1234567, as its reference implementation gives them."""
    with np.errstate(over="ignore"):
        states = np.uint64(1234567) + GOLDEN * np.arange(1, 4, dtype=np.uint64)
        outputs = mixed(states)
        assert [int(mixed(state)) for state in states] == outputs.tolist()
    assert outputs.tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]
