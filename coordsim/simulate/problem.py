"""A scenario translated for the engines: plain values, protocol objects, nothing decided yet.

The only place where scenario words become protocol words (the two rooms do not import each other).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from coordsim.cost.data_plane import DataPlane
from coordsim.cost.network import LogGP
from coordsim.cost.noise import NoiseModel
from coordsim.cost.orders import shuffled_places
from coordsim.cost.storage import step_input_ns
from coordsim.cost.wire_sizes import WireSizes
from coordsim.errors import Refused
from coordsim.protocol.buckets import Bucket
from coordsim.protocol.fusion import rounded_threshold
from coordsim.protocol.groups import GroupTable, by_layer, equal_parts
from coordsim.protocol.messages import Bundle, DType, Request, RequestList, Response, ResponseList, respond_to
from coordsim.protocol.negotiator import Settings
from coordsim.protocol.planes import Waiting
from coordsim.scenario.checks import clashes
from coordsim.scenario.model import Groups, Scenario, Tensor

Int64 = npt.NDArray[np.int64]


Progress: TypeAlias = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


class Problem:
    """What both engines start from."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.ranks = scenario.ranks
        self.plane = scenario.control_plane
        self.cycle_ns = max(self.plane.cycle_time_ns, 1)
        self.tensors: dict[str, Tensor] = {tensor.name: tensor for tensor in scenario.workload.tensors}
        self.kind = self.plane.kind
        grouping = self.plane.groups if self.kind.buckets is None else Groups()  # buckets take tensors one by one
        self.groups = _group_table(grouping, scenario.workload.tensors)
        self.requests: dict[str, Request] = {
            tensor.name: Request(
                tensor.name,
                dtype=DType[tensor.dtype.upper()],
                shape=tensor.shape,
                device=0,
                group=self.groups.digest(tensor.name),
            )
            for tensor in scenario.workload.tensors
        }
        ready_order = list(self.tensors)
        self.units: list[tuple[str, ...]] = self.groups.units(ready_order)
        """Units of submission, in ready order; members in registration order."""
        position = {name: index for index, name in enumerate(ready_order)}
        self.last_member: Int64 = np.array(
            [max(position[name] for name in unit) for unit in self.units], dtype=np.int64
        )
        """Shape [unit]: index in ready order of the tensor that completes the unit."""
        self.wait = self._wait()
        """Who waits for data in this run (docs/semantics.md 6.7); none: submission and existence are one."""
        self.shuffled = scenario.workload.order == "shuffled"
        """Whether each rank has a ready order of its own (docs/semantics.md 2.6)."""
        self.wire = WireSizes.of(self.plane.wire, self.ranks)
        self.network = LogGP.of(scenario.cluster)
        self.host = scenario.cluster.host
        self.control = scenario.cluster.control
        self.data = DataPlane(scenario)
        machine = scenario.cluster.machine
        self.noise = NoiseModel(scenario.noise, scenario.seed, self.ranks, machine.ranks_per_node)
        self.settings = Settings(
            self.ranks,
            rounded_threshold(self.plane.fusion_threshold_bytes, min(machine.ranks_per_node, self.ranks)),
            self.groups,
            max(self.plane.cache_capacity, 1),
            max(self.plane.radix, 2),
            self.plane.merge,
        )
        self.request_size = {name: self.wire.request(tensor) for name, tensor in self.tensors.items()}
        self._name_size = {name: self.wire.response_name(tensor) for name, tensor in self.tensors.items()}

    @cached_property
    def backward_ns(self) -> Int64:
        """Compute between one gradient and the next, ready order; shape [tensor]."""
        ready = np.array([tensor.ready_ns for tensor in self.scenario.workload.tensors], dtype=np.int64)
        return np.diff(ready, prepend=0)

    @cached_property
    def submit_gap_ns(self) -> Int64:
        """From one submission to the next, ready order; shape [tensor]. Differs from ``backward_ns`` only where hooks
        fire before gradients exist."""
        submit = np.array([tensor.submit_ns for tensor in self.scenario.workload.tensors], dtype=np.int64)
        return np.diff(submit, prepend=0)

    @cached_property
    def buckets(self) -> list[Bucket]:
        """Buckets of a control plane that settles them beforehand, in launch order; empty for the others."""
        if self.kind.buckets is None:
            return []
        singles = [respond_to(self.requests[name]) for (name,) in self.units]
        return self.kind.buckets(singles, self.plane.first_bucket_bytes, self.plane.bucket_bytes)

    @cached_property
    def unit_of(self) -> dict[str, int]:
        """Tensor name -> index of its unit of submission."""
        return {name: index for index, unit in enumerate(self.units) for name in unit}

    def completing(self, step: int, first: int, last: int) -> Int64:
        """Which gradient in time completes each unit: shape [rank, unit] for ranks first..last-1, counted from 0."""
        if not self.shuffled:
            return np.broadcast_to(self.last_member, (last - first, self.last_member.size))
        places = shuffled_places(self.scenario.seed, step, first, last, len(self.tensors))
        members, starts = self._members
        return np.maximum.reduceat(places[:, members], starts, axis=1)

    @cached_property
    def _members(self) -> tuple[Int64, Int64]:
        """Indices (in listed order) of all units' members, unit after unit, and where each unit begins."""
        position = {name: index for index, name in enumerate(self.tensors)}
        members = np.array([position[name] for unit in self.units for name in unit], dtype=np.int64)
        sizes = np.array([len(unit) for unit in self.units], dtype=np.int64)
        return members, np.cumsum(sizes) - sizes

    def _wait(self) -> Waiting:
        """Who waits for data in this run; raises Refused for what no engine can do.

        One rank goes by existence alone; some control planes leave no choice (docs/semantics.md 6.7).
        """
        for key, message, allowed in clashes(self.plane, self.scenario.workload):
            raise Refused.one("scenario", ".".join(key), self.plane.wait_for_data, message, allowed)
        return "none" if self.ranks == 1 else self.kind.waiting_for(self.plane.wait_for_data)

    @property
    def input_ns(self) -> int:
        """Reading the next step's samples takes this long on the slowest node; 0: no floor."""
        return step_input_ns(self.scenario)

    def next_start_ns(self, start_ns: int, end_ns: int) -> int:
        """S of the next step: after this one's end, and not before its samples are there.

        Reading begins when the step before starts (one batch is prefetched).
        """
        return max(end_ns, start_ns + self.input_ns)

    def request_list_bytes(self, message: RequestList | Bundle) -> int:
        """Size on the wire of one rank's list, or of a subtree's lists with a header around them."""
        if isinstance(message, Bundle):
            return self.wire.request_header + sum(self.request_list_bytes(each) for each in message.lists)
        return self.wire.request_header + sum(self.request_size[each.name] for each in message.requests)

    def response_list_bytes(self, message: ResponseList) -> int:
        """Size on the wire of the coordinator's list."""
        return self.schedule_bytes(message.responses)

    def schedule_bytes(self, responses: Iterable[Response]) -> int:
        """Size on the wire of a schedule."""
        responses = tuple(responses)
        names = sum(self._name_size[name] for response in responses for name in response.names)
        return self.wire.response_list(len(responses), names)


def _group_table(groups: Groups, tensors: tuple[Tensor, ...]) -> GroupTable:
    """Groups of names in registration order, as every rank registers them."""
    registered = sorted(tensors, key=lambda tensor: tensor.registration)
    names = [tensor.name for tensor in registered]
    if groups.mode == "layer":
        parts = by_layer({tensor.name: tensor.layer for tensor in registered})
    elif groups.mode == "count":
        parts = equal_parts(names, groups.count)
    elif groups.mode == "explicit":
        place = {name: index for index, name in enumerate(names)}
        parts = [tuple(sorted(part, key=place.__getitem__)) for part in groups.members]
    else:
        parts = []
    return GroupTable(tuple(parts), groups.strict)
