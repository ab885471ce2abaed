"""Sends and receives of one group: those that are open and have no other half.

Each rank numbers its sends by itself, so pairs are matched by their channel, from one rank to another, in their order.
Only open ones are examined: what has ended had its other half, whatever a cut buffer still shows of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordsim.formats.flight_recorder.findings import Finding
from coordsim.formats.flight_recorder.job import ENDED, STATES, Job, Key, Message, RankCalls
from coordsim.formats.flight_recorder.operations import tensors_in_words
from coordsim.formats.flight_recorder.words import plural


def open_messages(job: Job, key: Key, ranks: dict[int, RankCalls], members: Sequence[int] | None) -> list[Finding]:
    """Return findings on one group's sends and receives, at most one for each channel.

    ``members`` holds the group's ranks in the order of its own numbers. If they are not recorded it is None; then a
    group's rank is taken to be the job's for the group of all ranks, and nothing is compared for others.
    """
    if members is None and not job.is_default(key):
        return []
    channels: dict[tuple[int, int], tuple[list[Message], list[Message]]] = {}
    for rank, calls in ranks.items():
        for message in calls.messages:
            source, destination = (_job_rank(members, end) for end in (message.source, message.destination))
            if source is None or destination is None or rank != (source if message.sent else destination):
                continue  # the record names ranks that the group does not have
            sends, receives = channels.setdefault((source, destination), ([], []))
            (sends if message.sent else receives).append(message)
    findings = []
    for (source, destination), (sends, receives) in sorted(channels.items()):
        if any(end in ranks and ranks[end].cut for end in (source, destination)):
            continue  # the other half may be in the part that is lost
        if source in ranks and destination in ranks:
            whole = ranks[source].whole and ranks[destination].whole
            finding = _channel(job, key, (source, destination), (sends, receives), whole)
        else:
            finding = _without_dump(job, key, (source, destination), [*sends, *receives])
        if finding is not None:
            findings.append(finding)
    return findings


def _without_dump(job: Job, key: Key, ends: tuple[int, int], halves: list[Message]) -> Finding | None:
    """Return a finding for an open half whose peer left no dump, or one that does not go back far enough."""
    first = next((message for message in halves if message.state < ENDED), None)
    if first is None:
        return None
    waits, other = ends if first.sent else ends[::-1]
    verb = "sends to" if first.sent else "receives from"
    why = "left no dump" if other not in job.ranks else "has a dump that does not go back to calls of this group"
    text = (
        f"{job.label(key)}: {job.ranks[waits].label} {verb} rank {other}, {tensors_in_words(first.tensors)} "
        f"({STATES[first.state]}); rank {other} {why}, so nothing says whether it answers."
    )
    return Finding("no-dump", job.label(key), None, "send" if first.sent else "recv", text, waiting=(waits,))


def _job_rank(members: Sequence[int] | None, rank: int) -> int | None:
    if members is None:
        return rank
    return members[rank] if rank < len(members) else None


def _channel(
    job: Job, key: Key, ends: tuple[int, int], halves: tuple[list[Message], list[Message]], whole: bool
) -> Finding | None:
    """Return a finding for the first open half without the other one.

    ``whole`` states that both buffers go back to the first call, so that counts can be compared: an open receive may
    have a send that ended early, because small messages are buffered.
    """
    sends = [message for message in halves[0] if message.state < ENDED]
    receives = [message for message in halves[1] if message.state < ENDED]
    surplus = len(halves[0]) - len(halves[1])
    if whole:
        sends = sends[-surplus:] if surplus > 0 and len(sends) > surplus else sends
        receives = receives[surplus:] if surplus < 0 and len(receives) > -surplus else receives
        if surplus == 0:
            return _sizes(job, key, ends, sends, receives)
        if surplus > 0:
            receives = []
        else:
            sends = []
    elif sends and receives:
        return _sizes(job, key, ends, sends, receives)
    if not sends and not receives:
        return None
    waits, other = (ends[0], ends[1]) if sends else (ends[1], ends[0])
    verb, missing = ("sends to", "receive from") if sends else ("receives from", "send to")
    first = (sends or receives)[0]
    count = (
        f" ({plural(len(halves[0]), 'send')}, {plural(len(halves[1]), 'receive')} recorded)" if whole else ""
    )  # fmt: skip
    text = (
        f"{job.label(key)}: {job.ranks[waits].label} {verb} {job.ranks[other].label}, "
        f"{tensors_in_words(first.tensors)} ({STATES[first.state]}), and {job.ranks[other].label} has no {missing} "
        f"{job.ranks[waits].label} that could answer it{count}."
    )
    name = "send" if sends else "recv"
    kind = "send" if sends else "receive"
    return Finding(kind, job.label(key), None, name, text, waited_for=(other,), waiting=(waits,))


def _sizes(job: Job, key: Key, ends: tuple[int, int], sends: list[Message], receives: list[Message]) -> Finding | None:
    """Return a finding for an open send and an open receive that belong together and have different sizes."""
    left = list(sends)
    for message in receives:
        match = next((send for send in left if _alike(send, message)), None)
        if match is not None:
            left.remove(match)
            continue
        if len(sends) != len(receives) or not left or _values(message) is None or _values(left[0]) is None:
            return None
        send = left[0]
        source, destination = (job.ranks[end].label for end in ends)
        text = (
            f"{job.label(key)}: the size differs: {source} sends {tensors_in_words(send.tensors)} to {destination} "
            f"({STATES[send.state]}), which receives {tensors_in_words(message.tensors)} ({STATES[message.state]})."
        )
        calls = {source: f"send of {tensors_in_words(send.tensors)}",
                 destination: f"receive of {tensors_in_words(message.tensors)}"}  # fmt: skip
        return Finding("size", job.label(key), None, "send", text, waiting=ends, calls=calls)
    return None


def _values(message: Message) -> tuple[int, ...] | None:
    """Return the values of a message; backends record the tensor as input, as output, or as both."""
    return message.tensors.inputs or message.tensors.outputs or None


def _alike(first: Message, second: Message) -> bool:
    return _values(first) == _values(second)
