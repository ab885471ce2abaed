"""What ``coordsim predict`` says of real jobs at other numbers of ranks, against those jobs.

    python -m tests.bench.predict_real measure FOLDER [--minutes 4]   # again and again, until nothing is missing
    python -m tests.bench.predict_real table FOLDER [--cluster '{}.toml'] [--data predictions.json]

A run is launched once and kept, so the table is made again without launching anything. As root each rank goes before
what else the machine does (``BENCH_NICE``, -15).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.bench.predict_real.measure import measure
from tests.bench.predict_real.table import show


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("measure", "table"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--most-ranks", type=int, default=1 << 20)
    parser.add_argument("--cluster", help="a calibrated file; {} in it stands for the backend")
    parser.add_argument("--data", type=Path, help="write the rows here, for the package")
    asked = parser.parse_args()
    if asked.what == "measure":
        print(f"{measure(asked.folder, asked.minutes, asked.most_ranks)} runs are missing")
    else:
        show(asked.folder, asked.cluster, asked.data)


if __name__ == "__main__":
    main()
