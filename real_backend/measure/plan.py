"""What is timed, and how often: one plan that all ranks keep to."""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20
PATHS = ("auto", "links", "memory", "gloo")
"""How an allreduce may go; ``auto``: as the backend's default settings choose."""
SLEEP_NS = 1_000_000
COMPUTE_NS = 5_000_000
"""About how long the fixed computation takes."""


@dataclass(frozen=True)
class Plan:
    """Repeats of each kind, and sizes in bytes."""

    quick: bool

    @property
    def repeats(self) -> int:
        return 60 if self.quick else 200

    @property
    def ping_bytes(self) -> tuple[int, ...]:
        return (8, 512, 4 * KIB, 64 * KIB) if self.quick else (8, 64, 512, 4 * KIB, 16 * KIB, 64 * KIB)

    @property
    def burst(self) -> tuple[int, ...]:
        """Messages of 8 bytes back to back before one comes back."""
        return (4, 16, 64) if self.quick else (2, 4, 8, 16, 32, 64)

    @property
    def words(self) -> tuple[int, ...]:
        """Of the bit vector, 8 bytes each."""
        return (1, 16, 1000) if self.quick else (1, 4, 16, 64, 250, 1000)

    @property
    def list_bytes(self) -> tuple[int, ...]:
        return (8, 1 * KIB, 64 * KIB) if self.quick else (8, 256, 1 * KIB, 4 * KIB, 16 * KIB, 64 * KIB)

    def list_repeats(self, nbytes: int) -> int:
        """Fewer of what takes longer: Python encodes and decodes."""
        return self.repeats if nbytes <= 4 * KIB else self.repeats // 4

    def allreduce_bytes(self, path: str) -> tuple[int, ...]:
        if path != "auto":
            return (64 * KIB, 4 * MIB) if self.quick else (4 * KIB, 64 * KIB, 1 * MIB, 16 * MIB)
        powers = range(10, 25, 4 if self.quick else 2)
        return tuple(1 << power for power in powers)

    def allreduce_repeats(self, nbytes: int) -> int:
        """Fewer of what takes longer."""
        most, least = (20, 6) if self.quick else (60, 12)
        return max(least, min(most, 32 * MIB // nbytes))

    @property
    def sleeps(self) -> int:
        return 100 if self.quick else 300

    @property
    def computations(self) -> int:
        return 100 if self.quick else 400

    @property
    def copies(self) -> tuple[int, ...]:
        return (8 * MIB, 32 * MIB)

    @property
    def requests(self) -> tuple[tuple[int, int], ...]:
        """(ranks, tensors each) at the coordinator."""
        few = ((2, 16), (2, 256), (8, 16), (8, 256))
        return few if self.quick else (*few, (2, 1000), (16, 64), (32, 16), (16, 256))

    @property
    def request_repeats(self) -> int:
        return 8 if self.quick else 16

    def collective_bytes(self, operation: str) -> tuple[int, ...]:
        """Of a torch backend's collectives; gathers and reduce-scatters at two sizes only."""
        if operation != "ALLREDUCE":
            return (64 * KIB, 1 * MIB)
        return (4 * KIB, 256 * KIB, 2 * MIB) if self.quick else (4 * KIB, 64 * KIB, 512 * KIB, 2 * MIB, 8 * MIB)

    def collective_repeats(self, nbytes: int) -> int:
        """Fewer of what takes longer."""
        most, least = (24, 8) if self.quick else (50, 12)
        return max(least, min(most, 16 * MIB // nbytes))
