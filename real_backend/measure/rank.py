"""One rank of the measurement: ``python -m real_backend.measure.rank FOLDER RANK RANKS quick|full``.

Leaves its stamps as JSON in FOLDER. Rank 0 decides how much computing is about 5 ms, and tells the others.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from coordsim.record.files import whole_file
from real_backend.control.rendezvous import Purpose, connect
from real_backend.control.stores import FolderStore
from real_backend.control.tree import TreeTransport
from real_backend.measure.compute import computations, copies, passes_here, sleeps
from real_backend.measure.control import Stamped, control, meet
from real_backend.measure.plan import Plan

START_TIMEOUT_S = 30.0


def measure(folder: Path, rank: int, ranks: int, plan: Plan) -> tuple[list[Stamped], dict[str, str]]:
    """Return all of this rank's timings, and what is missing with the reason.

    The ranks connect through ``folder``, as a star.
    """
    store = FolderStore(folder / "store", START_TIMEOUT_S)
    neighbours = connect(
        store, rank, ranks, max(ranks - 1, 1), prefix="measure", interface="127.0.0.1", timeout_s=START_TIMEOUT_S
    )
    transport = TreeTransport(neighbours[Purpose.CONTROL])
    missing = {}
    if rank == 0:
        store.set("passes", str(passes_here()))
    passes = int(store.get("passes"))
    meet(transport)
    series = control(transport, plan)
    meet(transport)
    series.append(computations(passes, plan))
    meet(transport)
    series.append(sleeps(plan))
    meet(transport)
    if rank == 0:
        series += copies(plan)
    meet(transport)
    if find_spec("torch") is None:
        missing["allreduce"] = "torch is not installed: pip install 'coordsim[torch]'"
    else:
        from real_backend.measure.data import allreduces

        series += allreduces(transport, folder, plan)
    meet(transport)
    for neighbour in neighbours.values():
        neighbour.close()
    return series, missing


def main(folder: Path, rank: int, ranks: int, quick: bool) -> None:
    result, missing = measure(folder, rank, ranks, Plan(quick))
    with whole_file(folder / f"rank{rank}.json") as fresh:
        fresh.write_text(json.dumps({"series": [asdict(each) for each in result], "missing": missing}))


if __name__ == "__main__":
    given = sys.argv[1:]
    main(Path(given[0]), int(given[1]), int(given[2]), given[3] == "quick")
