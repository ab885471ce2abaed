"""What a prediction changes beside the number of ranks: the batch, input, the control plane, groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Literal, NamedTuple

from coordsim.analyse.predict.collectives import known
from coordsim.analyse.predict.measured import MeasuredWorkload
from coordsim.analyse.predict.typical import Call, Ready, TypicalStep
from coordsim.errors import InputError
from coordsim.protocol.messages import Op
from coordsim.protocol.planes import PLANES, PlaneKind
from coordsim.scenario.batch import BatchLaw, Point
from coordsim.scenario.model import CONTROL_PLANES

InputLaw = Literal["constant", "shared"]
INPUT_LAWS: tuple[InputLaw, ...] = ("constant", "shared")
_COMPUTE = ("forward", "backward")


class Batch(NamedTuple):
    """Samples of a rank and step."""

    recorded: int
    asked: int
    fixed_ns: int = 0
    """Of forward and backward together, what a step takes whatever its batch."""

    def compute(self, compute_ns: float) -> float:
        """Factor on forward and backward, which took ``compute_ns`` as recorded."""
        law = BatchLaw((Point(self.recorded, Fraction(max(round(compute_ns), 1))),), self.fixed_ns)
        nothing = Fraction(0)
        return float(law.compute_ns(self.asked, nothing) / law.compute_ns(self.recorded, nothing))

    @property
    def samples(self) -> float:
        """Factor on the number of samples."""
        return self.asked / self.recorded


@dataclass(frozen=True)
class Changes:
    """Of one request."""

    ranks: int
    batch: Batch | None = None
    input_law: InputLaw = "constant"
    control_plane: str | None = None
    """None: as recorded."""
    groups: str | None = None
    """``none``, ``layer`` or K; None: as recorded."""

    def input_factor(self, recorded_ranks: int) -> float:
        """On the time that a step waits for samples: the same storage serves all ranks, or each has its own."""
        samples = self.batch.samples if self.batch is not None else 1.0
        return samples * (self.ranks / recorded_ranks if self.input_law == "shared" else 1.0)


def batch_of(
    ranks: int, batch: int | None, global_batch: int | None, recorded: int | None, fixed_ns: int = 0
) -> Batch | None:
    """The batch that is asked for; None: as recorded.

    Raises InputError for both at once, for a batch of 0, for a global batch that ``ranks`` does not divide, and where
    nothing says how large the recorded batch was.
    """
    for flag, value in (("--batch", batch), ("--global-batch", global_batch), ("--recorded-batch", recorded)):
        if value is not None and value < 1:
            raise InputError.one(flag, "", value, f"{value} samples: at least 1 is needed")
    if batch is None and global_batch is None:
        return None
    if batch is not None and global_batch is not None:
        raise InputError.one("--global-batch", "", global_batch, "excludes --batch: say one or the other")
    if recorded is None:
        flag = "--batch" if batch is not None else "--global-batch"
        message = (
            "a record does not know its batch: say --recorded-batch B as well, the samples that each rank took in a "
            "step when it was recorded"
        )
        raise InputError.one(flag, "", batch or global_batch, message)
    if global_batch is not None:
        if global_batch % ranks:
            below = global_batch - global_batch % ranks
            nearest = f"{below} and {below + ranks}" if below else str(ranks)
            message = f"{global_batch} samples cannot be shared equally by {ranks} ranks (nearest: {nearest})"
            raise InputError.one("--global-batch", "", global_batch, message)
        batch = global_batch // ranks
    assert batch is not None
    return Batch(recorded, batch, fixed_ns)


def changed_workload(found: MeasuredWorkload, changes: Changes) -> MeasuredWorkload:
    """A measured workload with another batch and input; control plane and groups are the scenario's."""
    if found.input_ns is not None:
        found = replace(found, input_ns=round(found.input_ns * changes.input_factor(found.ranks)))
    if changes.batch is None:
        return found
    forward_ns = found.forward_ns or 0
    factor = changes.batch.compute(forward_ns + found.backward.value)
    gradients = []
    last = 0
    for each in found.gradients:
        last = max(round(each.ready_ns * factor), last + 1)
        gradients.append(replace(each, ready_ns=last))
    backward = replace(found.backward, **{
        end: getattr(found.backward, end) * factor for end in ("value", "low", "high")
    })  # fmt: skip
    return replace(
        found, gradients=tuple(gradients), backward=backward,
        forward_ns=None if found.forward_ns is None else round(forward_ns * factor),
    )  # fmt: skip


def changed_step(found: TypicalStep, changes: Changes) -> TypicalStep:
    """A typical step with what ``changes`` says. Raises InputError for what the record cannot tell."""
    factors = {"input_stall": changes.input_factor(found.ranks)}
    if changes.batch is not None:
        spent = sum(piece.cpu_ns + piece.sleep_ns for piece in found.pieces if piece.part in _COMPUTE)
        factors |= dict.fromkeys(_COMPUTE, changes.batch.compute(spent))
    pieces = tuple(
        piece._replace(cpu_ns=piece.cpu_ns * factor, sleep_ns=piece.sleep_ns * factor)
        for piece in found.pieces for factor in (factors.get(piece.part, 1.0),)
    )
    found = replace(found, pieces=pieces)
    plane = changes.control_plane
    if changes.groups is not None:
        found = replace(found, calls=_grouped(found, changes.groups, plane or found.plane))
    return found if plane in (None, found.plane) else _negotiated(found, str(plane))


def _negotiated(found: TypicalStep, plane: str) -> TypicalStep:
    """The same collectives agreed on in another way: over ``coord`` where ranks negotiate, over gloo where nobody
    does."""
    if plane not in CONTROL_PLANES:
        raise InputError.one("--control-plane", "", plane, f"{plane!r} is not a control plane", CONTROL_PLANES)
    if not known(found.backend) or any(call.operation != Op.ALLREDUCE for call in found.calls):
        message = f"{found.framework or 'this run'} over {found.backend} is reduced without agreement: only as recorded"
        raise InputError.one("--control-plane", "", plane, message)
    kind = PLANES[plane]
    calls = tuple(
        call._replace(agreed=kind.negotiates, requests=_tensors(found, call, kind)) for call in found.calls
    )
    return replace(found, plane=plane, backend="coord" if kind.buckets is None else "gloo", calls=calls)


def _tensors(found: TypicalStep, call: Call, plane: PlaneKind) -> int:
    """Requests of a rank for one collective, where a coordinator is asked."""
    if not plane.negotiates or plane.cache:
        return 0
    return max(round(len(found.gradients) / max(len(found.calls), 1)), 1)


def _grouped(found: TypicalStep, groups: str, plane: str) -> tuple[Call, ...]:
    """Collectives of explicit groups of gradients: each when its last member is ready."""
    if found.framework:
        message = f"{found.framework} reduces buckets or shards of its own: groups are DistributedOptimizer's"
        raise InputError.one("--groups", "", groups, message)
    if PLANES[plane].buckets is not None:
        raise InputError.one("--groups", "", groups, "nobody negotiates, so nobody groups")
    members = _members(found, groups)
    calls = [
        Call(int(Op.ALLREDUCE), sum(one.nbytes for one in group), max(one.after for one in group), False, 0.0)
        for group in members
    ]
    return tuple(sorted(calls, key=lambda call: call.after))


def _members(found: TypicalStep, groups: str) -> list[Sequence[Ready]]:
    ready = found.gradients
    if groups == "none":
        return [(one,) for one in ready]
    if groups == "layer":
        by_layer: dict[str, list[Ready]] = {}
        for one in ready:
            by_layer.setdefault(one.name.rpartition(".")[0], []).append(one)
        return list(by_layer.values())
    if not (groups.isascii() and groups.isdecimal() and int(groups) >= 1):
        message = f"{groups!r} is neither none, layer nor a count"
        raise InputError.one("--groups", "", groups, message, ("none", "layer"))
    count = min(int(groups), len(ready))
    edges = [len(ready) * index // count for index in range(count + 1)]
    return [ready[since:until] for since, until in pairwise(edges)]
