"""How fast a large Horovod timeline is imported, beside what reading it costs anyhow.

    python -m tests.bench.import_timeline [--megabytes 1000] [--packed]

A real recording is repeated, its time stamps moved on, in a temporary folder. Each figure is of a process of its own:
seconds of wall clock and CPU, MB/s, peak memory; `wc -l` and `json.load` (of a tenth, its memory allowing) beside it.
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
    options = parser.parse_args()
    main(options.megabytes, options.packed)
