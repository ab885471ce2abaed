"""Exchange programs, message by message (docs/semantics.md 4.1).

Every message also carries its *shadow* time: when it would arrive in the same cycle, from the same wakes, without
any serial work. That is what the breakdown's ``control_work`` is measured against (docs/semantics.md 7b).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import simpy

from coordsim.cost.network import LogGP
from coordsim.cost.programs import Combine, Program, Recv, RecvAll, Send, Work
from coordsim.simulate.event.clock import Clock, Wait


@dataclass(slots=True)
class Message:
    source: int
    payload: Any
    nbytes: int
    shadow_ns: int
    """Arrival in the run without serial work."""


@dataclass(slots=True)
class Meeting:
    """A combination in the switches, while parts are still missing."""

    done: simpy.Event
    value: Any
    came: int = 0
    shadow_ns: int = 0
    """The last part's arrival in the run without serial work."""


@dataclass(slots=True, kw_only=True)
class Endpoint:
    """One rank's control CPU and mailbox."""

    rank: int
    inbox: dict[Hashable, deque[Message]] = field(default_factory=lambda: defaultdict(deque))
    waiting: tuple[Hashable, Collection[int], simpy.Event] | None = None
    shadow_ns: int = 0
    """This rank's clock in the run without serial work."""


class Interpreter:
    """Runs programs over endpoints that can reach one another."""

    def __init__(self, env: Clock, network: LogGP, endpoints: Sequence[Endpoint]) -> None:
        self.env = env
        self.network = network
        self.endpoints = endpoints
        self._meetings: dict[Hashable, Meeting] = {}

    def run(self, me: Endpoint, program: Program, tag: Hashable) -> Wait:
        """Interpret ``program`` at ``me``. Messages meet by ``tag``: one per exchange, the same on all ranks."""
        network = self.network
        result: Any = None
        while True:
            try:
                op = program.send(result)
            except StopIteration as stop:
                return stop.value
            result = None
            match op:
                case Send(target, nbytes, payload):
                    flight = network.flight_ns(me.rank, target, nbytes)
                    message = Message(me.rank, payload, nbytes, me.shadow_ns + flight)
                    arrival = self.env.timeout(flight, (target, tag, message))
                    assert arrival.callbacks is not None
                    arrival.callbacks.append(self._arrive)
                    busy = network.send_busy_ns(me.rank, target, nbytes)
                    me.shadow_ns += busy
                    if busy:
                        yield self.env.timeout(busy)
                case Recv(source):
                    message = yield from self._take(me, tag, (source,))
                    me.shadow_ns = max(me.shadow_ns, message.shadow_ns) + network.overhead_ns
                    if network.overhead_ns:
                        yield self.env.timeout(network.overhead_ns)
                    result = message.payload
                case RecvAll(sources, root, work):
                    result = yield from self._take_all(me, tag, sources, root, work)
                case Combine():
                    result = yield from self._combine(me, tag, op)
                case Work(ns) if ns:
                    yield self.env.timeout(ns)

    def _take_all(
        self, me: Endpoint, tag: Hashable, sources: Collection[int], root: bool, work: Callable[[Any], int] | None
    ) -> Wait:
        network = self.network
        received, shadows = {}, []
        for _ in range(len(sources)):
            message = yield from self._take(me, tag, sources)
            service = network.root_service_ns(message.nbytes) if root else network.overhead_ns
            shadows.append((message.shadow_ns, service))
            busy = service + (work(message.payload) if work is not None else 0)
            if busy:
                yield self.env.timeout(busy)
            received[message.source] = message.payload
        for arrival, service in sorted(shadows):
            me.shadow_ns = max(me.shadow_ns, arrival) + service
        return received

    def _combine(self, me: Endpoint, tag: Hashable, op: Combine) -> Wait:
        meeting = self._meetings.get(tag)
        if meeting is None:
            meeting = self._meetings[tag] = Meeting(self.env.event(), op.value)
        else:
            meeting.value = op.combine(meeting.value, op.value)
        meeting.came += 1
        meeting.shadow_ns = max(meeting.shadow_ns, me.shadow_ns)
        if meeting.came == op.ranks:
            del self._meetings[tag]
            yield self.env.timeout(op.ns)
            meeting.done.succeed()
        else:
            yield meeting.done
        me.shadow_ns = meeting.shadow_ns + op.ns
        return meeting.value

    def _arrive(self, event: simpy.Event) -> None:
        target, tag, message = cast(tuple[int, Hashable, Message], event.value)
        receiver = self.endpoints[target]
        receiver.inbox[tag].append(message)
        if receiver.waiting is not None:
            wanted, sources, wake = receiver.waiting
            if wanted == tag and message.source in sources:
                receiver.waiting = None
                wake.succeed()

    def _take(self, me: Endpoint, tag: Hashable, sources: Collection[int]) -> Wait:
        """The next message of this exchange from one of ``sources``, waiting for it if need be."""
        box = me.inbox[tag]
        while True:
            found = next((i for i, message in enumerate(box) if message.source in sources), None)
            if found is not None:
                break
            arrival = self.env.event()
            me.waiting = (tag, sources, arrival)
            yield arrival
        message = box[found]
        del box[found]
        if not box:
            del me.inbox[tag]
        return message
