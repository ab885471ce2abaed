"""Scaling on Summit: efficiency, thresholds, sensitivity, grouping, and published numbers beside predictions.

``python analyses/summit_scaling/run.py [--quick] [--out DIR] [--only TABLE ...] [--render]``.
Writes CSV tables, a README made of them, and a figure.
``--quick``: smaller, for a test. ``--render``: README and figure again from the tables in DIR.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from conclusions import conclusions  # noqa: E402
from curves import efficiency, thresholds  # noqa: E402
from figure import draw  # noqa: E402
from grouping import grouping, win_back  # noqa: E402
from published import published, request_cost, ridge  # noqa: E402
from readme import render  # noqa: E402
from runs import Runs  # noqa: E402
from sensitivity import sensitivity  # noqa: E402

Table = list[dict[str, str]]

TABLES: dict[str, Callable[[Runs, bool], Iterable[dict[str, Any]]]] = {
    "efficiency": efficiency,
    "thresholds": thresholds,
    "sensitivity": sensitivity,
    "grouping": grouping,
    "win_back": win_back,
    "request_cost": request_cost,
    "ridge": ridge,
    "published": published,
}


def main(arguments: list[str] | None = None) -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small version, for a test")
    parser.add_argument("--out", type=Path, default=HERE, help="where to write (default: beside this file)")
    parser.add_argument("--only", nargs="+", choices=list(TABLES), help="compute these tables alone, keep the others")
    parser.add_argument("--render", action="store_true", help="only README and figure, from the tables in --out")
    chosen = parser.parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    if not chosen.render:
        runs = Runs(steps=2 if chosen.quick else None)
        for name, compute in TABLES.items():
            if chosen.only and name not in chosen.only:
                continue
            began, before = time.perf_counter(), runs.count
            write(chosen.out / f"{name}.csv", compute(runs, chosen.quick))
            print(f"{name}: {runs.count - before} runs, {time.perf_counter() - began:.1f} s", flush=True)
    tables = {name: read(chosen.out / f"{name}.csv") for name in TABLES}
    found = conclusions(tables)
    write(chosen.out / "conclusions.csv", found)
    (chosen.out / "README.md").write_text(render(tables, read(chosen.out / "conclusions.csv")), encoding="utf-8")
    draw(tables["efficiency"], chosen.out)


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """A CSV file with the columns of the first row."""
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> Table:
    """A CSV file as it stands."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
