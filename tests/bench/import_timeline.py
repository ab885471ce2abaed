"""How fast a large Horovod timeline is imported, beside what reading it costs anyhow.

    python -m tests.bench.import_timeline [--megabytes 1000] [--packed] [--worst]

A real recording is repeated, its time stamps moved on, in a temporary folder. Each figure is of a process of its own:
seconds of wall clock and CPU, MB/s, peak memory; `wc -l` and `json.load` (of a tenth, its memory allowing) beside it.
``--worst``: made timelines instead, without any fusion and with a cycle for every tensor (:data:`WORST`).
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.timelines import REAL

_TS = re.compile(rb'"ts": (\d+)')
_JSON = "import json, sys; print(len(json.load(open(sys.argv[1], 'rb'))))"


def repeated(source: Path, target: Path, nbytes: int) -> None:
    """``source``, repeated until ``nbytes``, each time later by the whole recording."""
    text = gzip.decompress(source.read_bytes()).rstrip().removesuffix(b"]")
    head = b'{"ph": "i", "name": "CYCLE_START"'
    events = text[text.index(head) :]
    introduced = re.findall(rb'\{"name": "process_(?:name|sort_index)", "ph": "M"[^}]*\}\},\n', text)
    events = re.sub(rb'\{"name": "process_(?:name|sort_index)", "ph": "M"[^}]*\}\},\n', b"", events)
    pieces = _TS.split(events)
    last = int(pieces[-2]) + 1000
    with open(target, "wb") as file:
        file.write(b"[\n" + b"".join(introduced))
        rounds = 0
        while file.tell() < nbytes:
            file.write(b",\n" if rounds else b"")
            file.write(b"".join(_shifted(pieces, rounds * last)).rstrip().removesuffix(b","))
            rounds += 1
        file.write(b"]")


WORST = {
    "161 tensors a step": (161, 0, True), "one tensor a step": (1, 0, True), "the same, 64 ranks": (1, 64, True),
    "the same, no marks": (1, 0, False), "a million names": (1_000_000, 0, True),
}  # fmt: skip
"""Tensors, ranks whose requests are counted, whether cycles are marked."""


def unfused(target: Path, nbytes: int, tensors: int, ranks: int, marked: bool) -> None:
    """A timeline in which every tensor is agreed and executed alone, written as Horovod writes."""
    with open(target, "wb") as file:
        file.write(b"[\n")
        for pid in range(1, tensors + 1):
            file.write(
                b'{"name": "process_name", "ph": "M", "pid": %d, "args": {"name": "layer.%d.weight"}},\n'
                b'{"name": "process_sort_index", "ph": "M", "pid": %d, "args": {"sort_index": %d}},\n'
                % (pid, pid, pid, pid)
            )
        now, first = 0, True
        while file.tell() < nbytes:
            for pid in range(1, tensors + 1):
                file.write(b"" if first else b",\n")
                file.write(_executed(pid, now, ranks, marked))
                now, first = now + 1000, False
        file.write(b"\n]")


def _executed(pid: int, now: int, ranks: int, marked: bool) -> bytes:
    lines = [b'{"ph": "i", "name": "CYCLE_START", "ts": %d, "s": "g"}' % now] if marked else []
    lines.append(b'{"ph": "B", "name": "NEGOTIATE_ALLREDUCE", "ts": %d, "pid": %d}' % (now + 5, pid))
    tick = b'{"ph": "X", "name": "%d", "ts": %d, "pid": %d, "dur": 0}'
    lines += [tick % (rank, now + 6, pid) for rank in range(ranks)]
    lines += [
        b'{"ph": "E", "ts": %d, "pid": %d}' % (now + 7, pid),
        b'{"ph": "B", "name": "ALLREDUCE", "ts": %d, "pid": %d}' % (now + 8, pid),
        b'{"ph": "E", "ts": %d, "pid": %d, "args": {"dtype": "float32", "shape": "[10]"}}' % (now + 30, pid),
    ]
    return b",\n".join(lines)


def _shifted(pieces: list[bytes], by_us: int) -> Iterator[bytes]:
    for index, piece in enumerate(pieces):
        yield b'"ts": %d' % (int(piece) + by_us) if index % 2 else piece


def measured(*command: str) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds and peak resident bytes of a process."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def worst(megabytes: int) -> None:
    """Print a Markdown table of the made ones."""
    print("| what | wall s | CPU s | MB/s of CPU | peak MB |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.json")
        for what, shape in WORST.items():
            unfused(path, megabytes * 10**6, *shape)
            command = (sys.executable, "-m", "coordsim", "import", str(path), "--out", f"{folder}/run")
            wall, cpu, peak = measured(*command)
            rate = path.stat().st_size / 1e6 / cpu
            print(f"| {what} | {wall:.1f} | {cpu:.1f} | {rate:,.0f} | {peak / 1e6:,.0f} |", flush=True)


def main(megabytes: int, packed: bool) -> None:
    """Print a Markdown table."""
    coordsim = (sys.executable, "-m", "coordsim", "import")
    measured(*coordsim, str(REAL[0]))  # compiles
    print("| what | wall s | CPU s | MB/s of CPU | peak MB |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        whole, tenth = Path(folder, "t.json"), Path(folder, "tenth.json")
        for source in REAL[1:]:  # the first one ends in the middle of a barrier
            repeated(source, whole, megabytes * 10**6)
            repeated(source, tenth, megabytes * 10**5)
            name, size = source.name.removesuffix(".timeline.json.gz"), whole.stat().st_size
            rows = [(f"`wc -l`, {name}", whole, ("wc", "-l", str(whole)))]
            rows.append((f"`json.load` of a tenth, {name}", tenth, (sys.executable, "-c", _JSON, str(tenth))))
            rows.append((f"`coordsim import`, {name}", whole, (*coordsim, str(whole), "--out", f"{folder}/run")))
            if packed:
                subprocess.run(["gzip", "-1kf", str(whole)], check=True)
                rows.append((f"`coordsim import`, gzip, {name}", whole, (*coordsim, f"{whole}.gz")))
            for what, file, command in rows:
                wall, cpu, peak = measured(*command)
                rate = file.stat().st_size / 1e6 / max(cpu, 0.01)
                print(f"| {what} | {wall:.1f} | {cpu:.1f} | {rate:,.0f} | {peak / 1e6:,.0f} |", flush=True)
            print(f"| (size of {name}) | | | {size / 1e6:,.0f} MB | |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the timeline")
    parser.add_argument("--packed", action="store_true", help="a compressed one too")
    parser.add_argument("--worst", action="store_true", help="made timelines that cost most")
    options = parser.parse_args()
    if options.worst:
        worst(options.megabytes)
    else:
        main(options.megabytes, options.packed)
