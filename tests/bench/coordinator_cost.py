"""What parsing and counting request lists costs one core: ``python -m tests.bench.coordinator_cost``.

The messages are coordsim's own (``coordsim/protocol/wire.py``), one list a rank, all ranks asking for the same tensors,
as in a step of a coordinator without a cache. Two arms do the same: parse every list, look every name up, compare the
request with the first one of that name, mark the rank, count, and collect the names that all have asked for.

- ``python``: the protocol's code, ``decode_requests`` and ``ReadinessTable``: what a backend of this project would pay.
- ``compiled``: numba over the bytes, nothing allocated. No C++ coordinator can do much less; Horovod's makes an object
  and a string of every request, so this is a floor.

Lists are as long or short as the point says, and as many as make ``megabytes`` in all, so that requests and messages
vary apart from each other. "cold": the total is above L3 and a buffer of several times its size is written before;
"warm": a few MB, parsed just before. Times are CPU seconds of the thread, the shortest of a few runs. ``--out`` writes
the points as JSON for ``coordsim/analyse/data/coordinator_cost.json``, from which ``coordsim.analyse.request_cost``
computes costs; the table printed here is that module's. ``--committed`` measures nothing and prints it for that file.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

from coordsim.analyse.request_cost import SCHEMA, Point, RequestCost, microbenchmark, request_cost_interval
from coordsim.protocol import wire
from coordsim.protocol.messages import Request, RequestList
from coordsim.protocol.readiness import ReadinessTable

Bytes = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]

_RANK_AT = 5
"""Where a list's header holds its rank (u32)."""
_NAME_AT = 33
"""Where a request holds its name's length (u16), behind the fields that a name's requests must share."""

REQUESTS = (1, 4, 16, 64, 161, 1000)
"""Requests in one list; 161 is ResNet-50."""


def requests(count: int) -> list[Request]:
    """Gradients of a deep network: names of some 30 bytes, mostly four dimensions."""
    names = [f"gradients/layer{index // 3}.conv{index % 3}.weight" for index in range(count)]
    shapes = [(64 + index % 7, 64, 3, 3) if index % 3 else (256,) for index in range(count)]
    return [Request(name, shape=shape, device=0) for name, shape in zip(names, shapes, strict=True)]


def messages(asked: Sequence[Request], ranks: int) -> Bytes:
    """Every rank's encoded list, shape [rank, byte]: one buffer in rank order, as a gather leaves it."""
    one = np.frombuffer(wire.encode(RequestList(0, tuple(asked))), dtype=np.uint8)
    every = np.tile(one, (ranks, 1))
    every[:, _RANK_AT : _RANK_AT + 4] = np.arange(ranks, dtype="<u4").view(np.uint8).reshape(ranks, 4)
    return every


def count_in_python(lists: Sequence[bytes], ranks: int) -> list[str]:
    """Names that all ranks have asked for, in order of completion, by the protocol's own code."""
    table = ReadinessTable(range(ranks))
    complete = []
    for data in lists:
        received = wire.decode_requests(data)
        for request in received.requests:
            if table.add(received.rank, request):
                complete.append(request.name)
    for name in complete:
        table.take(name)
    return complete


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _u32(data: Bytes, at: int) -> int:
    return data[at] | data[at + 1] << 8 | data[at + 2] << 16 | data[at + 3] << 24


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _u64(data: Bytes, at: int) -> np.uint64:
    """Eight bytes; unsigned places, so that the compiler sees one load."""
    place, word = np.uint64(at), np.uint64(0)
    for byte in range(8):
        word |= np.uint64(data[place + np.uint64(byte)]) << np.uint64(8 * byte)
    return word


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _hash(data: Bytes, begin: int, end: int) -> int:
    """Of a name, eight bytes a round, the last round overlapping; all of the name matters, and its length."""
    found = np.uint64(1469598103934665603) ^ np.uint64(end - begin)
    at = begin
    while at + 8 <= end:
        found = (found ^ _u64(data, at)) * np.uint64(11400714819323198485)
        found ^= found >> np.uint64(32)
        at += 8
    if end - begin >= 8:
        found = (found ^ _u64(data, end - 8)) * np.uint64(11400714819323198485)
    else:
        while at < end:
            found = (found ^ np.uint64(data[at])) * np.uint64(11400714819323198485)
            at += 1
    return int((found ^ (found >> np.uint64(32))) & np.uint64(0x7FFFFFFF))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _same(data: Bytes, one: int, other: int, length: int) -> bool:
    if length >= 8:
        for offset in range(0, length - 7, 8):
            if _u64(data, one + offset) != _u64(data, other + offset):
                return False
        return bool(_u64(data, one + length - 8) == _u64(data, other + length - 8))
    for offset in range(length):  # noqa: SIM110 (numba has no all() over a generator)
        if data[one + offset] != data[other + offset]:
            return False
    return True


@numba.njit(cache=True, nogil=True, error_model="numpy")
def count_compiled(
    data: Bytes, list_bytes: int, ranks: int, first: Int64, counts: Int64, seen: Bytes, complete: Int64
) -> int:
    """How many names are complete, or -1 - the byte at which a list is malformed, asks twice or disagrees.

    ``data``: ``ranks`` lists of ``list_bytes`` each. ``first``, ``counts`` (zeros, shape [slot], a power of two): per
    name where its first request stands, plus 1, and how many asked. ``seen`` (zeros, shape [slot, rank]) marks ranks.
    ``complete`` is given where the completing requests stand, in order.
    """
    slots = first.size
    done = 0
    for begin in range(0, ranks * list_bytes, list_bytes):
        end = begin + list_bytes
        if data[begin] != 0xD5 or data[begin + 1] != 0xC0 or data[begin + 3] != 1:
            return -1 - begin
        rank, asked = _u32(data, begin + 5), _u32(data, begin + 9)
        if rank >= ranks:
            return -1 - begin
        at = begin + 17
        for _ in range(asked):
            if at + 35 >= end:
                return -1 - at
            name = at + 35
            rest = name + (data[at + 33] | data[at + 34] << 8)
            if rest >= end:
                return -1 - at
            after = rest + 1 + 8 * data[rest]
            if after > end:
                return -1 - at
            slot = _hash(data, name, rest) & (slots - 1)
            while first[slot] and not _same(data, first[slot] - 1 + 33, at + 33, rest - at - 33):
                slot = (slot + 1) & (slots - 1)
            if not first[slot]:
                first[slot] = at + 1
            was = first[slot] - 1
            if not _same(data, was, at, 33) or not _same(data, was + rest - at, rest, after - rest) or seen[slot, rank]:
                return -1 - at
            seen[slot, rank] = 1
            counts[slot] += 1
            if counts[slot] == ranks:
                complete[done] = at
                done += 1
            at = after
        if at != end:
            return -1 - at
    return done


def counted_compiled(every: Bytes, most: int) -> list[str]:
    """Names that all ranks have asked for, in order of completion, by :func:`count_compiled`; at most ``most``."""
    ranks, list_bytes = every.shape
    slots = 1 << (2 * most).bit_length()
    flat, complete = every.reshape(-1), np.zeros(most, dtype=np.int64)
    first, counts = np.zeros((2, slots), dtype=np.int64)
    seen = np.zeros((slots, ranks), dtype=np.uint8)
    done = count_compiled(flat, list_bytes, ranks, first, counts, seen, complete)
    if done < 0:
        raise ValueError(f"malformed at byte {-1 - done}")
    names = []
    for at in complete[:done].tolist():
        (length,) = struct.unpack_from("<H", flat, at + _NAME_AT)
        names.append(flat[at + _NAME_AT + 2 : at + _NAME_AT + 2 + length].tobytes().decode())
    return names


def cpu_s(work: Callable[[], int], before: Callable[[], object], runs: int) -> float:
    """The shortest of ``runs`` runs, CPU seconds of this thread; ``before`` is not timed."""
    times = []
    for _ in range(runs):
        before()
        began = time.thread_time()
        work()
        times.append(time.thread_time() - began)
    return min(times)


def measure(arm: str, memory: str, asked: int, megabytes: float, flush: Bytes, runs: int) -> Point:
    """One point; raises AssertionError when an arm counts wrong."""
    wanted = requests(asked)
    list_bytes = wire.list_bytes(RequestList(0, tuple(wanted)))
    ranks = max(int(megabytes * 1e6) // list_bytes, 1)
    every, names = messages(wanted, ranks), [request.name for request in wanted]

    def spoil() -> None:
        if memory == "cold":
            flush.fill(1)

    if arm == "python":
        lists = [row.tobytes() for row in every]
        assert count_in_python(lists, ranks) == names
        taken = cpu_s(lambda: len(count_in_python(lists, ranks)), spoil, runs)
    else:
        assert counted_compiled(every, asked) == names
        slots = 1 << (2 * asked).bit_length()
        flat, complete = every.reshape(-1), np.zeros(asked, dtype=np.int64)
        first, counts = np.zeros((2, slots), dtype=np.int64)
        seen = np.zeros((slots, ranks), dtype=np.uint8)

        def clear() -> None:
            first.fill(0)
            counts.fill(0)
            seen.fill(0)
            spoil()

        taken = cpu_s(lambda: count_compiled(flat, list_bytes, ranks, first, counts, seen, complete), clear, runs)
    return Point(arm, memory, ranks, ranks * asked, ranks * list_bytes, taken)


def run(quick: bool) -> list[Point]:
    """All points: the compiled arm cold and warm, the Python arm cold."""
    plan = [("compiled", "cold", 1.0), ("compiled", "warm", 0.2), ("python", "cold", 0.3)] if quick else [
        ("compiled", "cold", 400.0), ("compiled", "cold", 200.0), ("compiled", "warm", 4.0), ("compiled", "warm", 2.0),
        ("python", "cold", 40.0),
    ]  # fmt: skip
    flush = np.zeros(1 << (10 if quick else 28), dtype=np.uint8)
    return [
        measure(arm, memory, asked, megabytes, flush, 1 if quick else 2 if arm == "python" else 7)
        for arm, memory, megabytes in plan
        for asked in REQUESTS
    ]


def machine() -> dict[str, str]:
    """What the points were measured on."""
    model, cache = platform.processor() or platform.machine(), ""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
        cache = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text(encoding="utf-8").strip()
    except (OSError, StopIteration):
        pass
    return {
        "cpu": model, "cores": str(os.cpu_count()), "l3": cache, "python": platform.python_version(),
        "numba": numba.__version__,
    }  # fmt: skip


def show_points(points: Sequence[Point]) -> None:
    print(f"{'arm':<10}{'memory':<8}{'messages':>12}{'requests':>12}{'MB':>8}{'CPU s':>10}{'ns a request':>14}")
    for each in points:
        print(
            f"{each.arm:<10}{each.memory:<8}{each.messages:>12,}{each.requests:>12,}{each.nbytes / 1e6:>8.1f}"
            f"{each.cpu_s:>10.4f}{each.cpu_s / each.requests * 1e9:>14.1f}"
        )
    for cost in microbenchmark(points):
        print(
            f"{cost.arm}, {cost.memory}: {cost.per_request_ns:.1f} ns a request, {cost.per_message_ns:.1f} ns a "
            f"message; worst point off by {100 * cost.worst:.0f} %"
        )


def show_interval(cost: RequestCost) -> None:
    print(f"\nns a request, of which {cost.from_memory_ns:.0f} since it comes from memory ({cost.measured}):")
    print(f"low {cost.low_ns}, median {cost.median_ns}, high {cost.high_ns}; made of those with *, plus that")
    for each in cost.estimates:
        star, spread = "*" if each.in_interval else " ", f"{each.low_ns:.0f} to {each.high_ns:.0f}"
        message = "" if each.per_message_ns is None else f", {each.per_message_ns:.0f} ns a message"
        print(f"{star} {each.per_request_ns:>8.0f} ({spread}){message}: {each.name} ({each.note})")
    for ranks, tensors in ((6000, 161), (27_600, 161), (27_600, 33)):
        low, middle, high = cost.serial_s(ranks, tensors)
        print(f"{ranks:,} ranks x {tensors} tensors: {low:.2f}, {middle:.2f}, {high:.2f} s of counting a step")


def main(quick: bool, committed: bool, out: Path | None) -> None:
    if committed:
        show_interval(request_cost_interval())
        return
    points = run(quick)
    show_points(points)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    found = {"schema": SCHEMA, "date": today, "machine": machine(), "points": [asdict(each) for each in points]}
    show_interval(request_cost_interval(found))
    if out is not None:
        beside = out.with_name(out.name + ".new")
        beside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        beside.replace(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--committed", action="store_true", help="measure nothing, take the recorded points")
    parser.add_argument("--out", type=Path, help="write the points here")
    arguments = parser.parse_args()
    main(arguments.quick, arguments.committed, arguments.out)
