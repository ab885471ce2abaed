"""``coordinator`` and ``point-to-point``: everything goes to rank 0, every cycle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coordsim.cost.wire_sizes import LENGTH_BYTES
from coordsim.protocol.messages import Response
from coordsim.record.trace import Kind
from coordsim.simulate.vector.kernels import exchanges as ex
from coordsim.simulate.vector.pattern import Outcome, Pattern
from coordsim.simulate.vector.plane import Asked, Decision, Plane

Int64 = npt.NDArray[np.int64]


class Coordinator(Plane):
    """Gather lengths, gather lists, count, broadcast length, broadcast list; every cycle."""

    def idle(self, pattern: Pattern) -> Outcome:
        def make() -> Outcome:
            nobody = np.zeros(self.problem.ranks, dtype=np.int64)
            return self._round(pattern, Asked(nobody, nobody + self.problem.wire.request_header), ())

        return self._kept(pattern, "idle", make)

    def idle_bytes(self) -> int:
        return self.problem.wire.request_header * (self.problem.ranks - 1)

    def decide(self, pattern: Pattern, wake_ns: int) -> Decision:
        before, least = self._pop(pattern, wake_ns)
        asked = Asked(self._between(self.member_prefix, before, self.counts, 0), self._list_bytes(before, self.counts))
        schedule = self._ready_schedule(self.done, least) if least > self.done else ()
        self.done = least
        outcome = self._round(pattern, asked, schedule)
        return Decision(schedule, Kind.SLOW, outcome, asked.total, asked.sent_bytes)

    def _round(self, pattern: Pattern, asked: Asked, schedule: tuple[Response, ...]) -> Outcome:
        self._refuse_large(asked, schedule)

        def serial(free: Int64, working: bool) -> None:
            self.ask(free, asked, schedule, working)

        return self._evaluate(pattern, serial, True)

    def _refuse_large(self, asked: Asked, schedule: tuple[Response, ...]) -> None:
        merges = self.problem.control.gather != "linear"
        answer = self.problem.schedule_bytes(schedule)
        gathered = asked.sent_bytes + int(asked.nbytes[0])
        largest = max(gathered if merges else int(asked.nbytes.max()), answer)
        self._within_reach(largest, max(gathered, answer * self.problem.ranks))

    def ask(self, free: Int64, asked: Asked, schedule: tuple[Response, ...], working: bool) -> None:
        """The slow path's sequence, from ``free`` on (updated in place)."""
        host, net = self.problem.host, self.net
        self._gather(free, np.full(free.size, LENGTH_BYTES, dtype=np.int64))
        self._gather(free, asked.nbytes)
        if working:
            free[0] += host.per_message_ns * (free.size - 1) + host.per_request_ns * asked.total
            free[0] += host.per_response_ns * sum(len(response.names) for response in schedule)
        ex.broadcast_binomial(free, LENGTH_BYTES, net)
        ex.broadcast_binomial(free, self.problem.schedule_bytes(schedule), net)

    def _gather(self, free: Int64, nbytes: Int64) -> None:
        control = self.problem.control
        if control.gather == "binomial":
            ex.gather_binomial(free, nbytes, self.net)
        elif control.gather == "node-leaders":
            ex.gather_node_leaders(free, nbytes, self.net)
        else:
            ex.gather_linear(free, nbytes, control.eager_limit_bytes, self.net)


class PointToPoint(Coordinator):
    """Every worker messages rank 0, which serves as they come and answers one after the other."""

    def ask(self, free: Int64, asked: Asked, schedule: tuple[Response, ...], working: bool) -> None:
        host, net = self.problem.host, self.net
        service = np.full(free.size, net.overhead_ns, dtype=np.int64)
        if working:
            service += host.per_message_ns + host.per_request_ns * asked.requests
            free[0] += host.per_request_ns * int(asked.requests[0])
        ex.star_gather(free, asked.nbytes, service, net)
        if working:
            free[0] += host.per_response_ns * sum(len(response.names) for response in schedule)
        ex.star_broadcast(free, self.problem.schedule_bytes(schedule), net)
