"""Predictions of a folder's recorded runs against its measured ones: a table, and the rows that the package keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from coordsim.analyse.predict.asked import Asked, answer
from coordsim.analyse.predict.changes import Changes
from coordsim.analyse.predict.validated import SCHEMA, Compared
from coordsim.record.ranks import read_folder
from coordsim.record.ranks.own import own_steps
from tests.bench.predict_real.plan import JOBS, KINDS, MEASURED, RECORDED, run_name


def measured_s(run: Path) -> float:
    """The median step of a run without its first, over ranks and steps."""
    lengths = [
        step.end_ns - step.begin_ns
        for record in read_folder(run / "ranks") for number, step in own_steps(record).items() if number > 0
    ]  # fmt: skip
    return float(np.median(lengths)) / 1e9


def compared(folder: Path, cluster: str | None) -> Iterator[tuple[Compared, dict[str, Any]]]:
    """Each measured run with the prediction from its recorded one; ``cluster``: a file for each backend (``{}``)."""
    for job in JOBS:
        for kind in KINDS:
            recorded = folder / run_name(job, kind, RECORDED)
            if not (recorded / "bench.json").is_file():
                continue
            records = read_folder(recorded / "ranks")
            for ranks in MEASURED:
                run = folder / run_name(job, kind, ranks)
                if not (run / "bench.json").is_file():
                    continue
                backend = "gloo" if kind in ("ddp", "fsdp2") else "coord"
                file = cluster.format(backend) if cluster is not None else None
                facts = answer(records, Asked(recorded.name, str(recorded), Changes(ranks), file)).facts
                bench = json.loads((run / "bench.json").read_text())
                nbytes = sum(response.nbytes for response in records[0].responses if response.step == 2)
                interval, told = facts["interval"], facts["recorded"]
                yield Compared(
                    told["backend"], told["framework"], job.name, RECORDED, ranks, bench["cores"], nbytes,
                    measured_s(run), facts["step_time_s"], interval["low_s"], interval["high_s"], bench["date"][:10],
                ), facts | {"kind": kind, "others": bench["others_cores"]}  # fmt: skip


def show(folder: Path, cluster: str | None, data: Path | None) -> None:
    """Print the table; write the rows to ``data``."""
    rows = []
    print("| job | reduced by | N | measured | predicted | 90 % interval | error | recorded N off |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    offs = []
    for row, facts in compared(folder, cluster):
        rows.append(row)
        offs.append(facts["recorded"]["off"])
        held = "" if row.held else " missed"
        print(
            f"| {row.job} | {facts['kind']} | {row.ranks} | {1e3 * row.measured_s:.1f} ms | "
            f"{1e3 * row.predicted_s:.1f} ms | {1e3 * row.low_s:.0f} to {1e3 * row.high_s:.0f} ms{held} | "
            f"{100 * row.off:+.0f} % | {100 * facts['recorded']['off']:+.1f} % |", flush=True,
        )  # fmt: skip
    errors = [abs(row.off) for row in rows]
    if rows:
        print(
            f"\n{len(rows)} predictions: median error {100 * median(errors):.1f} %, worst {100 * max(errors):.0f} %; "
            f"intervals hold {sum(row.held for row in rows)} "
            f"({100 * sum(row.held for row in rows) / len(rows):.0f} %); "
            f"the recorded N off by {100 * max(map(abs, offs)):.1f} % at worst"
        )
    if data is not None:
        written = {"schema": SCHEMA, "rows": [vars(row) for row in rows]}
        data.write_text(json.dumps(written, indent=1) + "\n")
