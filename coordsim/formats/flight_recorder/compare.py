"""Compares ranks group by group: who is waited for, and what differs. A rank is named only with evidence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from coordsim.formats.flight_recorder.findings import Finding
from coordsim.formats.flight_recorder.job import DONE, ENDED, SCHEDULED, STARTED, STATES, Job, Key, RankCalls
from coordsim.formats.flight_recorder.messages import open_messages
from coordsim.formats.flight_recorder.operations import Disagreement, disagreement, in_words, needs_all
from coordsim.formats.flight_recorder.words import listed, names_of, plural, ranks_in_words, verb

_MOST_CLUSTERS = 4


@dataclass(frozen=True)
class GroupReport:
    """One group: its members, how far each rank came, and the findings."""

    key: Key
    label: str
    description: str
    members: tuple[int, ...]
    members_recorded: bool
    seen: str
    """Calls by rank, in words."""
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    calls: int

    @property
    def text(self) -> str:
        """One line for people."""
        by = "" if self.members_recorded else " (members not recorded: those that left a dump with it)"
        count = len(self.findings)
        verdict = f"{count} finding{'s' if count > 1 else ''}" if count else "no difference"
        return f"{self.label}, {ranks_in_words(self.members)}{by}: {self.seen}; {'; '.join((verdict, *self.notes))}"


def compare(job: Job) -> list[GroupReport]:
    """Compare all groups; those with findings first, then by name."""
    job.join_unknown()
    stands = job.open_calls()
    reports = [_Group(job, key, ranks, stands).report() for key, ranks in job.groups.items() if any(_called(ranks))]
    return sorted(reports, key=lambda report: (not report.findings, _name_order(report.key.name), report.members))


def _called(ranks: dict[int, RankCalls]) -> Iterable[bool]:
    return (bool(rank.numbers or rank.messages) for rank in ranks.values())


def _name_order(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (1 << 62, name)


class _Group:
    """The comparison of one group."""

    def __init__(
        self, job: Job, key: Key, ranks: dict[int, RankCalls], stands: dict[int, list[tuple[Key, int, str]]]
    ) -> None:
        self.stands = stands
        self.job, self.key, self.label = job, key, job.label(key)
        self.ranks = dict(sorted(ranks.items()))
        self.recorded = key.members is not None and key not in job.strangers
        self.members = tuple(sorted(key.members)) if key.members is not None and self.recorded else tuple(self.ranks)
        nameless = any(rank < 0 for rank in job.ranks)
        if self.recorded and not nameless:
            self._add_silent(self.members)
        if not self.recorded and job.is_default(key):
            self._add_silent(job.ranks)
        self.absent = () if nameless or not self.recorded else tuple(r for r in self.members if r not in job.ranks)
        self.all_here = self.recorded and set(self.members) == set(self.ranks) and not nameless
        self.notes: list[str] = []

    def _add_silent(self, members: Iterable[int]) -> None:
        """Add ranks whose complete buffer shows that they made no call of this group."""
        for rank in members:
            if rank not in self.ranks and rank in self.job.ranks and self.job.ranks[rank].whole:
                self.ranks[rank] = RankCalls(from_start=True, whole=True)

    def report(self) -> GroupReport:
        findings: list[Finding] = []
        if self._number_alike():
            findings += self._differing()
            findings += self._waiting()
        self._note_gaps()
        key_members = self.key.members if self.recorded else None
        if key_members is None and not self.job.is_default(self.key) and any(r.messages for r in self.ranks.values()):
            self.notes.append("sends and receives not compared, for they name members by their place in the group")
        findings += open_messages(self.job, self.key, self.ranks, key_members)
        calls = max((len(rank.numbers) for rank in self.ranks.values()), default=0)
        return GroupReport(
            self.key, self.label, self.job.descriptions.get(self.key, ""), self.members, self.recorded, self._seen(),
            tuple(findings), tuple(self.notes), calls,
        )  # fmt: skip

    def _number_alike(self) -> bool:
        """Make numbers comparable where sends were counted, too; return False if this is not possible."""
        mixed = any(rank.burnt for rank in self.ranks.values())
        sends = any(rank.messages for rank in self.ranks.values())
        cut = not all(rank.from_start for rank in self.ranks.values())
        if not mixed and not (sends and (self.job.shared_numbers or (self.job.early and cut))):
            return True
        if cut:
            self.notes.append("collectives not compared: this version's numbers count sends too, and a buffer is cut")
            return False
        for rank in self.ranks.values():
            rank.numbers = type(rank.numbers)("q", range(1, len(rank.numbers) + 1))
        return True

    def _by_number(self) -> dict[int, dict[int, list[int]]]:
        """Return number -> place of the call in the job's table -> ranks that made it."""
        table: dict[int, dict[int, list[int]]] = {}
        for rank, calls in self.ranks.items():
            for number, call in zip(calls.numbers, calls.calls, strict=True):
                table.setdefault(number, {}).setdefault(call, []).append(rank)
        return table

    def _differing(self) -> list[Finding]:
        """Note the first number under which ranks contradict each other; further ones are counted."""
        first: Finding | None = None
        further: list[int] = []
        undecided = 0
        for number, by_call in sorted(self._by_number().items()):
            if len(by_call) < 2:
                continue
            calls = [self.job.calls[call] for call, ranks in by_call.items() for _ in ranks]
            complete = self.all_here and not self.job.sizes_in_part and len(calls) == len(self.members)
            size = len(self.members) if complete else None
            problem = disagreement(calls, size)
            if problem is None:
                continue
            if not self.recorded and not self.job.is_default(self.key) and self._all_done(number):
                undecided += 1
                continue
            if first is None:
                first = self._difference(number, by_call, problem)
            else:
                further.append(number)
        if undecided:
            self.notes.append(
                f"{undecided:,} calls differ and have ended: without members this may be several groups of one name"
            )
        if first is None:
            return []
        if further:
            differ = "differs" if len(further) == 1 else "differ"
            text = f"{first.text} {plural(len(further), 'later call')} of this group {differ} too ({listed(further)})."
            first = replace(first, text=text)
        return [first]

    def _all_done(self, number: int) -> bool:
        places = ((rank, rank.place(number)) for rank in self.ranks.values())
        return all(place is None or rank.states[place] >= ENDED for rank, place in places)

    def _difference(self, number: int, by_call: dict[int, list[int]], problem: Disagreement) -> Finding:
        groups: dict[str, list[int]] = {}
        for call, ranks in by_call.items():
            groups.setdefault(in_words(self.job.calls[call]), []).extend(ranks)
        order = sorted(groups.items(), key=lambda item: (len(item[1]), item[1]))
        calls = {self._names(ranks): words for words, ranks in order}
        did = "; ".join(f"{ranks} called {words}" for ranks, words in list(calls.items())[:_MOST_CLUSTERS])
        if len(calls) > _MOST_CLUSTERS:
            did += f"; {len(calls) - _MOST_CLUSTERS} more kinds of call"
        text = f"{self.label}, call {number}: {problem.sentence}: {did}. {self._state(number)}"
        text += self._shift(number, by_call)
        most = self.job.calls[max(by_call, key=lambda call: len(by_call[call]))]
        return Finding(problem.what, self.label, number, most.operations[0].name, text, calls=calls)

    def _state(self, number: int) -> str:
        """Describe how far the call came on its ranks, as a sentence."""
        by_state: dict[int, list[int]] = {}
        for rank, calls in self.ranks.items():
            if (place := calls.place(number)) is not None:
                by_state.setdefault(calls.states[place], []).append(rank)
        if len(by_state) == 1:
            return f"It is {STATES[next(iter(by_state))]} on all of them."
        states = sorted(by_state.items())
        return "It is " + ", ".join(f"{STATES[state]} on {self._names(ranks)}" for state, ranks in states) + "."

    def _shift(self, number: int, by_call: dict[int, list[int]]) -> str:
        """Return whether the smallest side's calls equal the others' one number later or earlier.

        The side has then left one out, or has made one more.
        """
        sides = sorted(by_call.values(), key=len)
        if len(sides[0]) == len(sides[-1]):
            return ""
        odd, usual = self.ranks[sides[0][0]], self.ranks[sides[-1][0]]
        for step, words in ((1, "left out one call"), (-1, "made one call more")):
            same = 0
            here = range(number if step > 0 else number + 1, odd.last + 1)
            for own in here:
                first, second = odd.place(own), usual.place(own + step)
                if first is None or second is None:
                    break
                if odd.calls[first] != usual.calls[second]:
                    same = 0
                    break
                same += 1
            if same >= 2:
                base = here.start
                return (
                    f" The calls of {self._names(sides[0])} from {base} on equal the others' from {base + step} on "
                    f"({same:,} compared): it looks as if {self._names(sides[0])} {words} at or before {number}."
                )
        return ""

    def _waiting(self) -> list[Finding]:
        """Note the first call that has begun on some rank and ended on none: who waits in it, and for whom."""
        proven = max((self._proven(rank) for rank in self.ranks.values()), default=0)
        begun = [
            rank.numbers[place] for rank in self.ranks.values()
            for place in range(rank.first_open if rank.first_open is not None else len(rank.numbers), len(rank.numbers))
            if rank.numbers[place] > proven
        ]  # fmt: skip
        if not begun:
            self._note_short(proven)
            self._note_open(proven)
            return self._short_of_ended(proven)
        number = min(begun)
        here: dict[int, int] = {}
        for rank, calls in self.ranks.items():
            if (place := calls.place(number)) is not None:
                here[rank] = calls.states[place]
        waiting = tuple(rank for rank, state in here.items() if state < ENDED)
        lacking = tuple(rank for rank, calls in self.ranks.items() if self._lacks(rank, calls, number))
        first = self.ranks[waiting[0]]
        place = first.place(number)
        assert place is not None
        call = self.job.calls[first.calls[place]]
        what = f"{self.label}, call {number}, {in_words(call)}"
        name = call.operations[0].name
        if lacking:
            return [self._missing(number, name, what, lacking, waiting, here)]
        problem = self._not_known(what, here, waiting, number)
        begun_on = tuple(rank for rank in waiting if here[rank] == STARTED)
        idle = tuple(rank for rank in waiting if here[rank] == SCHEDULED)
        if problem is not None:
            return [Finding(problem[0], self.label, number, name, problem[1], waiting=waiting)]
        if begun_on and idle and len(here) == len(waiting):
            text = (
                f"{what}: all have called it; {self._names(begun_on)} {verb(begun_on, 'has', 'have')} started it and "
                f"{self._names(idle)} {verb(idle, 'has', 'have')} not (scheduled)."
            )
            return [Finding("not-started", self.label, number, name, text, waited_for=idle, waiting=begun_on)]
        self.notes.append(f"call {number} ({name}) was open, and called by all, when the dumps were taken")
        return []

    def _not_known(
        self, what: str, here: dict[int, int], waiting: tuple[int, ...], number: int
    ) -> tuple[str, str] | None:
        """Return kind and sentence where the dumps leave open whether all ranks have made an open call."""
        unclear = tuple(
            rank for rank in self.members
            if rank in self.job.ranks and rank not in here and not self._has_passed(rank, number)
        )  # fmt: skip
        if unclear:
            return "unclear", (
                f"{what}: open on {self._names(waiting)}; the dumps of {self._names(unclear)} are cut off, or hold no "
                "call of this group and do not go back to the first, so nothing says whether they made it."
            )
        if self.absent:
            return "no-dump", (
                f"{what}: open on all {len(waiting)} ranks that left a dump and made it ({self._names(waiting)}); "
                f"{self._names(self.absent)} left no dump, so nothing says whether they made it."
            )
        if not self.recorded and len(self.ranks) < max(len(self.job.ranks), 2):
            return "members-unknown", (
                f"{what}: open on {self._names(waiting)}; the dumps do not list this group's members, and no other "
                "dump has the call, so whether a rank is missing, and which, is not known."
            )
        return None

    def _short_of_ended(self, proven: int) -> list[Finding]:
        """Note ranks without a call that ended on others, if that does not prove that all ranks made it (gloo)."""
        last = max((calls.last for calls in self.ranks.values()), default=0)
        lacking = tuple(rank for rank, calls in self.ranks.items() if self._lacks(rank, calls, last))
        number = min((self.ranks[rank].last for rank in lacking), default=0) + 1
        having = tuple(
            rank for rank, calls in self.ranks.items()
            if (place := calls.place(number)) is not None and calls.states[place] == ENDED
        )  # fmt: skip
        if not lacking or not having or number <= proven:
            return []
        lacking = tuple(rank for rank in lacking if self.ranks[rank].last < number)
        first = self.ranks[having[0]]
        call = self.job.calls[first.calls[first.place(number) or 0]]
        text = (
            f"{self.label}, call {number}, {in_words(call)}: it has ended on {self._names(having)}, and it is not "
            f"recorded whether well or with an error; {self._names(lacking)} {verb(lacking, 'has', 'have')} not called "
            "it: "
            + "; ".join(self._last(rank) for rank in lacking[:_MOST_CLUSTERS])
            + ". If it ended well, that dump was taken earlier."
        )
        name = call.operations[0].name
        return [Finding("missing", self.label, number, name, text, waited_for=lacking, waiting=having)]

    def _proven(self, rank: RankCalls) -> int:
        """Return the highest number that ended on this rank and can end nowhere before all ranks have called it."""
        for place in range(len(rank.numbers) - 1, -1, -1):
            if rank.states[place] == DONE and needs_all(self.job.calls[rank.calls[place]]):
                return rank.numbers[place]
        return 0

    def _lacks(self, rank: int, calls: RankCalls, number: int) -> bool:
        """Return whether this rank has certainly not made the call.

        Its buffer continues, or is complete, and ends before the call.
        """
        return calls.last < number and not calls.cut and (bool(calls.numbers) or calls.from_start)

    def _has_passed(self, rank: int, number: int) -> bool:
        """Return whether the rank has later calls, so that this one was only not recorded, or is overwritten."""
        return rank in self.ranks and self.ranks[rank].last > number

    def _missing(
        self,
        number: int,
        name: str,
        what: str,
        lacking: tuple[int, ...],
        waiting: tuple[int, ...],
        here: dict[int, int],
    ) -> Finding:
        places = ((rank, self.ranks[rank].place(number)) for rank in waiting)
        states = sorted({STATES[self.ranks[rank].states[place]] for rank, place in places if place is not None})
        text = f"{what}: {self._names(waiting)} {verb(waiting, 'waits', 'wait')} in it ({', '.join(states)}); "
        text += f"{self._names(lacking)} {verb(lacking, 'has', 'have')} not called it: "
        text += "; ".join(self._last(rank) for rank in lacking[:_MOST_CLUSTERS])
        text += f"; {len(lacking) - _MOST_CLUSTERS} more." if len(lacking) > _MOST_CLUSTERS else "."
        if ENDED in here.values():
            ended = self._names(rank for rank, state in here.items() if state == ENDED)
            text += f" It has ended on {ended}, not recorded whether well; if so, that dump was taken earlier."
        if self.absent:
            text += f" {self._names(self.absent)} left no dump.".replace(" rank", " Rank", 1)
        return Finding("missing", self.label, number, name, text, waited_for=lacking, waiting=waiting)

    def _last(self, rank: int) -> str:
        """Describe the last call of a rank in this group, and its state on other ranks."""
        calls, label = self.ranks[rank], self.job.ranks[rank].label
        if not calls.numbers:
            return f"{label} has made no call of this group{self._elsewhere(rank)}"
        call = self.job.calls[calls.calls[-1]]
        return (
            f"the last call of {label} in this group is {calls.last}, {call.operations[0].name} "
            f"({STATES[calls.states[-1]]}){self._elsewhere(rank)}"
        )

    def _elsewhere(self, rank: int) -> str:
        for key, number, name in self.stands.get(rank, ()):
            if key != self.key:
                return f", and it is itself in call {number} of {self.job.label(key)}, {name}"
        return ""

    def _note_short(self, proven: int) -> None:
        short = [
            rank for rank, calls in self.ranks.items()
            if calls.last < proven and not calls.cut and (calls.numbers or calls.from_start)
        ]  # fmt: skip
        if short:
            self.notes.append(
                f"the dump of {self._names(short)} ends before call {proven}, which has ended elsewhere and cannot end "
                "without all ranks: it was taken earlier"
            )

    def _note_gaps(self) -> None:
        """Note numbers that a rank passed without a record: captured in a CUDA graph, or a batch without calls."""
        gaps = [
            rank for rank, calls in self.ranks.items()
            if calls.numbers and calls.last - calls.numbers[0] + 1 > len(calls.numbers)
        ]  # fmt: skip
        if gaps:
            first = self.ranks[gaps[0]]
            number = next(n for n in range(first.numbers[0], first.last) if first.place(n) is None)
            self.notes.append(f"some calls are not recorded on {self._names(gaps)}, the first of them call {number}")

    def _note_open(self, proven: int) -> None:
        """Note calls that ended on one rank, so that all have made them, and are open on another."""
        slow = [
            rank for rank, calls in self.ranks.items()
            if (place := calls.place(proven)) is not None and calls.states[place] < ENDED
        ]  # fmt: skip
        if slow:
            self.notes.append(f"call {proven} has ended on other ranks and was still open on {self._names(slow)}")

    def _seen(self) -> str:
        """Describe the calls in each rank's buffer; ranks that are alike stand together."""
        spans: dict[str, list[int]] = {}
        for rank, calls in self.ranks.items():
            span = "no collective"
            if calls.numbers:
                first = calls.numbers[0]
                span = f"call {first}" if first == calls.last else f"calls {first} to {calls.last}"
            sends = len(calls.messages)
            more = f" and {plural(sends, 'send or receive', 'sends and receives')}" if sends else ""
            spans.setdefault(span + more, []).append(rank)
        parts = [
            span if len(spans) == 1 else f"{span} on {self._names(ranks)}"
            for span, ranks in sorted(spans.items(), key=lambda item: item[1])
        ]  # fmt: skip
        more = f"; {len(parts) - _MOST_CLUSTERS} more" if len(parts) > _MOST_CLUSTERS else ""
        return "; ".join(parts[:_MOST_CLUSTERS]) + more

    def _names(self, ranks: Iterable[int]) -> str:
        return names_of(self.job, ranks)
