"""A stalled Horovod job on the screen and in JSON."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Run
from tests.formats.horovod.test_run import begin, mark, tick, timeline
from tests.formats.horovod.test_unfinished import stalled


def test_it_is_on_the_screen_too(run: Run, tmp_path: Path) -> None:
    shown = " ".join(run("import", stalled(tmp_path / "t.json", 0)).stdout.split())
    assert "'t1' had waited 60.0 s for all ranks to ask for ALLREDUCE: asked for by rank 0, not by ranks 1-3" in shown


def test_a_job_that_stalled_in_its_first_step_is_imported_without_a_run(run: Run, tmp_path: Path) -> None:
    path = timeline(tmp_path / "t.json", begin("NEGOTIATE_BROADCAST", 5, 1), tick(3, 6, 1), mark(2_000_005))
    result = run("import", path, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["gives"] == {"run": False, "workload": False, "cluster": False}
    assert found["found"]["steps"] == 0
    assert found["found"]["ranks"] is None
    assert found["unknown"]["ranks"].endswith("the highest rank that asked for one is 3")
    (waiting,) = found["found"]["waiting_at_end"]
    assert (waiting["asked"], waiting["not_asked"], waiting["waited_s"]) == ([3], None, 2.0)
    assert run("import", path, "--out", tmp_path / "run").exit_code == 2
