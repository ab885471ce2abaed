"""Bytes of control messages, for the cost model; additive per tensor (docs/semantics.md 4.4).

``horovod``: FlatBuffers tables as Horovod 0.28 sends them (sizes rebuilt in docs/horovod.md 3.1), where
each response carries one int32 a rank. ``coordsim``: the wire form of ``coordsim.protocol.wire``; a test
holds this formula and that code together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coordsim.scenario.model import Tensor

LENGTH_BYTES = 4
"""Size of the length that precedes a list."""


@dataclass(frozen=True, slots=True)
class WireSizes:
    """Sizes of list headers, requests and responses in one wire form; bytes."""

    request_header: int
    response_header: int
    per_response: int
    request_fixed: int
    request_per_dimension: int
    name_padding: int
    """Names are padded to a multiple of this; 1 means no padding."""
    name_terminator: int
    response_per_name: int

    @classmethod
    def of(cls, wire: str, ranks: int) -> WireSizes:
        """Return the sizes of the wire form "horovod" or "coordsim"; ``ranks`` matters only for Horovod's device
        lists."""
        if wire == "horovod":
            return cls(25, 25, 80 + 4 * ranks, 56, 8, 4, 1, 16)
        return cls(17, 17, 38, 36, 8, 1, 0, 10)

    def _name(self, name: str) -> int:
        length = len(name.encode()) + self.name_terminator
        return -(-length // self.name_padding) * self.name_padding

    def request(self, tensor: Tensor) -> int:
        """Return the size of one request for ``tensor``."""
        return self.request_fixed + self._name(tensor.name) + self.request_per_dimension * len(tensor.shape)

    def response_name(self, tensor: Tensor) -> int:
        """Return ``tensor``'s share of the response that carries it."""
        return self.response_per_name + self._name(tensor.name)

    def response_list(self, responses: int, name_bytes: int) -> int:
        """Return the size of a list of ``responses`` whose members' shares sum to ``name_bytes``."""
        return self.response_header + responses * self.per_response + name_bytes

    def request_list(self, requests: Sequence[Tensor]) -> int:
        return self.request_header + sum(self.request(tensor) for tensor in requests)
