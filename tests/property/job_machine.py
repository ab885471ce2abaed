"""One job on several control planes at once: all must end the same names in the same cycles.

The oracle knows nothing of caches or coordinators: a name ends in the first cycle after its last rank has
submitted it or joined, in an error exactly when the submissions do not fit together or a rank that has joined would
have to bring data. A join ends in the first cycle after the last rank has joined.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from coordsim.protocol.groups import GroupTable
from coordsim.protocol.messages import JOIN_NAME, DType, Op, ReduceOp, Request, Response
from coordsim.protocol.negotiator import Schedule, Settings, tree_children
from coordsim.protocol.queue import AfterJoin, DuplicateName
from coordsim.protocol.ranges import ranges
from tests.protocol.drive import UNMERGED, Job

OPS = (*(Op.ALLREDUCE,) * 6, Op.ALLGATHER, Op.ALLGATHER, Op.BROADCAST, Op.REDUCESCATTER, Op.BARRIER)
TWISTS: tuple[dict[str, Any], ...] = (
    {}, {}, {}, {}, {"device": 1}, {"dtype": DType.INT32}, {"shape": (7, 2)}, {"shape": (3, 5)}, {"shape": ()},
    {"op": Op.ALLGATHER}, {"op": Op.BROADCAST}, {"prescale": 0.5}, {"postscale": 0.5},
    {"reduce_op": ReduceOp.MAX}, {"root_rank": 1}, {"device": -1}, {"group": 12345},
)  # fmt: skip
CHANGES: tuple[dict[str, Any], ...] = (
    {}, {}, {}, {}, {"shape": (5, 2)}, {"dtype": DType.FLOAT16}, {"prescale": 0.25}, {"op": Op.ALLGATHER},
    {"op": Op.BROADCAST}, {"reduce_op": ReduceOp.SUM}, {"device": 2},
)  # fmt: skip

STALLED = st.sampled_from([set(), set(), {0}, {1}, {2, 3}, set(range(6))])
"""Ranks whose patience ends."""


def fit(requests: list[Request]) -> bool:
    """Whether requests of all ranks for one name make one collective."""
    def kind(request: Request) -> tuple[Any, ...]:
        gather = request.op is Op.ALLGATHER
        return (
            request.dtype, request.op, len(request.shape), request.shape[gather:], request.prescale,
            request.postscale, request.reduce_op, request.root_rank, request.device < 0, request.group,
        )  # fmt: skip

    scalar = any(each.op in (Op.ALLGATHER, Op.REDUCESCATTER) and not each.shape for each in requests)
    return not scalar and len({kind(request) for request in requests}) == 1


class JobMachine(RuleBasedStateMachine):
    """Submissions at random times in random orders; every cycle is compared."""

    jobs: dict[str, Job]
    sound = False
    """Whether a job was started and every cycle so far passed: otherwise it cannot be ended in order."""

    @initialize(
        ranks=st.sampled_from([3, 1, 2, 4, 5, 6]), names=st.integers(1, 8),
        cuts=st.lists(st.integers(1, 3), min_size=8, max_size=8), strict=st.booleans(),
        ops=st.lists(st.sampled_from(OPS), min_size=8, max_size=8),
        capacity=st.sampled_from([1, 2, 3, 5, 8]), threshold=st.sampled_from([0, 0, 40, 100, 1 << 20]),
        radix=st.integers(1, 4),
    )  # fmt: skip
    def start(
        self, ranks: int, names: int, cuts: list[int], strict: bool, ops: list[Op], capacity: int,
        threshold: int, radix: int,
    ) -> None:  # fmt: skip
        every = [f"t{index}" for index in range(names)]
        self.units: list[tuple[str, ...]] = []
        while every:
            size = cuts[len(self.units)]
            self.units.append(tuple(every[:size]))
            every = every[size:]
        self.groups = GroupTable(tuple(unit for unit in self.units if len(unit) > 1), strict)
        small = Settings(ranks, threshold, self.groups, capacity, radix)
        self.ranks, self.threshold, self.radix = range(ranks), threshold, radix
        self.jobs = {
            "coordinator": Job("coordinator", small), "tree": Job("hierarchical", small, through_wire=True),
            "unmerged": Job(UNMERGED, small), "cached": Job("cached", small, through_wire=True),
            "cached, large": Job("cached", replace(small, cache_capacity=1024)),
        }  # fmt: skip
        self.template = {
            name: Request(name, ops[index], shape=(index + 2, 2), device=0, group=self.groups.digest(name),
                          root_rank=0 if ops[index] is Op.BROADCAST else -1)
            for index, name in enumerate(name for unit in self.units for name in unit)
        }  # fmt: skip
        self.submitted: dict[str, dict[int, Request]]
        """Outstanding submissions by name and rank."""
        self.popped: list[list[str]]
        """By rank: names submitted since the last cycle, in order."""
        self.forget()
        self.sound = True

    def forget(self) -> None:
        """A new job: nobody has asked for anything, nobody has joined."""
        self.submitted = {name: {} for name in self.template}
        self.popped = [[] for _ in self.ranks]
        self.flat_seen: dict[str, set[int]] = {}
        self.tree_seen: list[dict[str, set[int]]] = [{} for _ in self.ranks]
        self.joined: set[int] = set()
        self.joining: set[int] = set()

    def submit(self, rank: int, unit: tuple[str, ...], twist: dict[str, Any]) -> None:
        requests = [replace(self.template[name], **(twist if name == unit[0] else {})) for name in unit]
        for job in self.jobs.values():
            job.submit(rank, *requests)
        for request in requests:
            self.submitted[request.name][rank] = request
            self.popped[rank].append(request.name)

    @rule(rank=st.integers(0, 5), unit=st.integers(0, 7), twist=st.sampled_from(TWISTS))
    def one_submits(self, rank: int, unit: int, twist: dict[str, Any]) -> None:
        rank, members = rank % len(self.ranks), self.units[unit % len(self.units)]
        if self.may_submit(rank, members):
            self.submit(rank, members, twist)
            return
        for job in self.jobs.values():
            try:
                job.submit(rank, *(self.template[name] for name in members))
            except (AfterJoin, DuplicateName):
                continue
            raise AssertionError("a second submission, or one after a join, was taken")

    def may_submit(self, rank: int, unit: tuple[str, ...]) -> bool:
        return rank not in self.submitted[unit[0]] and rank not in self.joined

    @rule(ranks=st.sets(st.integers(0, 11), max_size=2))
    def join(self, ranks: set[int]) -> None:
        """Not too often, or nobody has data."""
        for rank in ranks.intersection(self.ranks) - self.joined:
            for job in self.jobs.values():
                job.join(rank)
            self.joined.add(rank)
            self.joining.add(rank)

    @rule(seed=st.integers(0, 99), absent=st.sets(st.integers(0, 5), max_size=2), stalled=STALLED)
    def step(self, seed: int, absent: set[int], stalled: set[int]) -> None:
        """As training does: what is left, then a round in which some are late by a cycle."""
        self.others_submit_all(seed, set())
        self.cycle(set())
        self.others_submit_all(seed, absent)
        self.cycle(set())
        self.cycle(stalled)

    @rule(units=st.lists(st.integers(0, 7), min_size=1, max_size=3), absent=st.sets(st.integers(0, 5), max_size=1))
    def a_few_units(self, units: list[int], absent: set[int]) -> None:
        """Everybody but ``absent`` submits the same few units, then a cycle: part of the cache is used."""
        for unit in units:
            members = self.units[unit % len(self.units)]
            for rank in self.ranks:
                if rank not in absent and self.may_submit(rank, members):
                    self.submit(rank, members, {})
        self.cycle(set())

    @rule(seed=st.integers(0, 99), absent=st.sets(st.integers(0, 5), max_size=2))
    def others_submit_all(self, seed: int, absent: set[int]) -> None:
        """Everybody but ``absent`` submits what it has not, each in its own order."""
        source = random.Random(seed)
        for rank in self.ranks:
            if rank not in absent:
                for unit in source.sample(self.units, len(self.units)):
                    if self.may_submit(rank, unit):
                        self.submit(rank, unit, {})

    @rule(seed=st.integers(0, 99), ranks=st.sets(st.integers(0, 5), min_size=1, max_size=2))
    def some_run_out_of_data(self, seed: int, ranks: set[int]) -> None:
        """As at the end of an epoch: two steps, one with data on all ranks, one without on some."""
        self.others_submit_all(seed, set())
        self.cycle(set())
        self.join(ranks)
        self.others_submit_all(seed, set())
        self.cycle(set())
        self.others_submit_all(seed + 1, set())
        self.cycle(set())

    @rule(unit=st.integers(0, 7), change=st.sampled_from(CHANGES))
    def everybody_changes(self, unit: int, change: dict[str, Any]) -> None:
        """From the next step on the first member of a unit has other parameters, on all ranks."""
        name = self.units[unit % len(self.units)][0]
        if not self.submitted[name]:
            self.template[name] = replace(self.template[name], **change)

    def complete(self) -> dict[str, bool]:
        """Names that end in the next cycle, and whether in an error."""
        ends = {}
        for name, by_rank in self.submitted.items():
            without = set(self.ranks) - by_rank.keys()
            if by_rank and without <= self.joined:
                op = next(iter(by_rank.values())).op
                ends[name] = not fit(list(by_rank.values())) or bool(
                    without and op not in (Op.ALLREDUCE, Op.BARRIER)
                )
        if self.joined == set(self.ranks):
            ends[JOIN_NAME] = False
        return ends

    @rule(stalled=STALLED)
    def cycle(self, stalled: set[int]) -> None:
        """Ranks in ``stalled`` give up on the hits that they wait for."""
        self.sound = False  # until the end of this cycle
        expected = self.complete()
        schedules = {}
        for label, job in self.jobs.items():
            waiting = {r: job.negotiators[r].waiting for r in stalled if r in self.ranks}
            pending = job.negotiators[0].pending
            before = len(job.ended)
            schedules[label] = job.cycle(stalled=waiting, explain=pending)
            ended = {each.name: bool(each.error) for each in job.ended[before:]}
            assert ended == expected, f"{label}: {ended} instead of {expected}"
            for response in schedules[label].responses:
                self.check_response(response)
            self.check_missing(label, job, set(pending).difference(expected))
        assert schedules["unmerged"] == schedules["coordinator"], "a tree that does not merge changes the schedule"
        self.check_order(schedules)
        self.check_sizes(schedules)
        for name in expected:
            self.submitted.get(name, {}).clear()
        if JOIN_NAME in expected:
            self.joined = set()
        self.joining = set()
        self.popped = [[] for _ in self.ranks]
        self.sound = True

    def check_missing(self, label: str, job: Job, asked: set[str]) -> None:
        """What a stall report would say: exactly the ranks with data that have not submitted."""
        told = job.negotiators[0].explained
        assert all(self.submitted[name] for name in told), f"{label}: told of a name that nobody waits for"
        for name, missing in told.items():
            absent = set(self.ranks) - self.submitted[name].keys() - self.joined
            assert missing == ranges(absent), f"{label}: {name} lacks {missing} instead of {absent}"
        if label != "tree":
            assert set(told) == asked, f"{label}: told of {set(told)} instead of {asked}"

    def check_response(self, response: Response) -> None:
        if response.op is Op.JOIN:
            assert response.root_rank == max(self.joining), "not the rank that joined last"
        self.check_fusion(response)

    def check_fusion(self, response: Response) -> None:
        if len(response.names) > 1:
            assert response.op in (Op.ALLREDUCE, Op.ALLGATHER, Op.REDUCESCATTER), f"{response.op.name} was fused"
            if self.groups.strict:
                assert set(response.names) <= set(self.groups.members(response.names[0])), "fused across strict groups"
            else:
                assert response.nbytes <= self.threshold, "fused beyond the threshold"

    def check_sizes(self, schedules: dict[str, Schedule]) -> None:
        """All control planes agree on what every tensor weighs."""
        sizes = [
            {name: size for each in one.responses for name, size in zip(each.names, each.sizes, strict=True)}
            for one in schedules.values()
        ]
        assert all(each == sizes[0] for each in sizes), "sizes differ between planes"

    def check_order(self, schedules: dict[str, Schedule]) -> None:
        """docs/semantics.md 5.3: by completing rank, then by its position; in a tree the same rule at every node.

        Errors are left out: a tree's node passes them on behind its requests.
        """
        everybody = set(self.ranks)
        flat = completed([*enumerate(self.popped)], self.flat_seen, everybody, self.joined)
        tree = self.completed_below(0)
        if self.threshold or self.groups.strict:
            return
        for label, order in (("coordinator", flat), ("tree", tree)):
            responses = schedules[label].responses
            wrong = {each.names[0] for each in responses if each.error}
            done = [each.names[0] for each in responses if not each.error]
            over = [JOIN_NAME] if self.joined == everybody else []
            assert done == [name for name in order if name not in wrong] + over, f"{label}: order of completion"

    def completed_below(self, node: int) -> list[str]:
        children = tree_children(node, len(self.ranks), self.radix)
        lists = [(node, self.popped[node]), *((child, self.completed_below(child)) for child in children)]
        joined = {voter for voter, _ in lists if self.below(voter, voter == node) <= self.joined}
        return completed(lists, self.tree_seen[node], {voter for voter, _ in lists}, joined)

    def below(self, node: int, alone: bool = False) -> set[int]:
        """The ranks for which ``node`` speaks to its parent."""
        children = () if alone else tree_children(node, len(self.ranks), self.radix)
        return {node}.union(*(self.below(child) for child in children))

    @rule(leaver=st.integers(0, 40))
    def stop(self, leaver: int) -> None:
        """Rarely, one rank leaves: what is pending fails everywhere. The next job starts from nothing."""
        if leaver >= len(self.ranks):
            return
        self.sound = False  # until there is a new job
        complete = self.complete()
        for job in self.jobs.values():
            pending = [tuple(name for name in q.outstanding if name not in complete) for q in job.queues]
            assert job.cycle(shutdown=[leaver]).shutdown, "a shutdown was not passed on"
            assert job.drained == pending
            job.watch.job_done()
        self.jobs = {
            label: Job(UNMERGED if label == "unmerged" else job.kind, job.settings, job.through_wire)
            for label, job in self.jobs.items()
        }
        self.forget()
        self.sound = True

    def teardown(self) -> None:
        """Whoever is behind submits; then all join, everything has ended, and nothing is left to say."""
        if not self.sound:
            return
        for unit in self.units:
            if self.submitted[unit[0]]:
                for rank in self.ranks:
                    if self.may_submit(rank, unit):
                        self.submit(rank, unit, {})
        self.join(set(self.ranks))
        for stalled in (set(), set()):
            self.cycle(stalled)
        for job in self.jobs.values():
            job.watch.job_done()
            assert job.schedules[-1].responses == ()
            assert job.kind != "cached" or job.exchanges[-1] == ["AndReduce"]


def completed(
    lists: list[tuple[int, list[str]]], seen: dict[str, set[int]], voters: set[int], joined: set[int]
) -> list[str]:
    """Names that these lists complete, by list and place; then those that joins complete, by first request."""
    order = []
    for voter, names in lists:
        for name in names:
            seen.setdefault(name, set()).add(voter)
            if seen[name] == voters:
                order.append(name)
                del seen[name]
    by_joins = [name for name, asked in seen.items() if asked | joined == voters]
    for name in by_joins:
        del seen[name]
    return order + by_joins
