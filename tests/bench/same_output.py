"""What the verbs say, for a comparison of two commits: ``python -m tests.bench.same_output RUNS OUT``.

Runs the verbs that read or make a run over fixed input and keeps every byte that they write under ``OUT``: stdout,
stderr, manifests, and digests of exported files. Run it in a checkout of each commit, with the same RUNS, and compare
the two folders with ``diff -r``. ``RUNS`` is a folder of run directories and of folders of ranks' records. Wall-clock
times and temporary names are masked; everything else has to be equal.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from typer.testing import CliRunner

from coordsim.cli import app

DATA = Path(__file__).parents[1] / "data"
PLANES = ("ideal", "ddp", "point-to-point", "coordinator", "hierarchical", "cached")
SMALL = ("--workload", "resnet50", "--cluster", "summit", "--ranks", "24", "--steps", "4")
PREDICTED = ("pp1", "neg_cached", "vd_r_fwdlate")
"""Runs that are predicted from as well, which takes some seconds each."""
IMPORTED = (
    "horovod/join.json", "horovod/hierarchical.json", "horovod_runs/tl_mpi_n2_cache.timeline.json.gz",
    "kineto/two_passes.json", "kineto/gpu_lag.json", "kineto/epoch_us.json", "kineto/fsdp2",
)  # fmt: skip
FORMATS = ("perfetto", "chrome", "goal", "chakra", "horovod")
_WALL = re.compile(r'("engine_wall_s": )[0-9.e-]+')


def commands(runs: Path, scratch: Path) -> Iterator[tuple[str, list[str]]]:
    """(name, arguments) of everything that is compared; runs that it makes are in ``scratch``."""
    for plane in PLANES:
        flags = ["simulate", *SMALL, "--control-plane", plane]
        yield f"simulate {plane}", flags
        yield f"simulate {plane} explained", [*flags, "--explain"]
        yield f"simulate {plane} json", [*flags, "--explain", "--json", "--out", str(scratch / f"simulated_{plane}")]
    for name in IMPORTED:
        plain = name.replace("/", "_").partition(".")[0]
        yield f"import {plain}", ["import", str(DATA / name), "--json", "--out", str(scratch / f"imported_{plain}")]
    for run in sorted(path for path in (*runs.iterdir(), *scratch.iterdir()) if path.is_dir()):
        yield f"report {run.name}", ["report", str(run)]
        yield f"report {run.name} ranks", ["report", str(run), "--ranks"]
        yield f"report {run.name} json", ["report", str(run), "--json"]
        yield f"report {run.name} steps", ["report", str(run), "--steps", "2:8", "--json"]
        yield f"report {run.name} out", ["report", str(run), "--json", "--out", str(scratch / f"merged_{run.name}")]
        yield f"calibrate {run.name}", ["calibrate", str(run), "--json"]
        for form in FORMATS:
            out = scratch / f"exported_{run.name}_{form}"
            yield f"export {run.name} {form}", ["export", str(run), "--to", form, "--out", str(out)]
    for name in PREDICTED:
        flags = ["predict", str(runs / name), "--ranks", "12", "--steps", "2"]
        yield f"predict {name}", flags
        yield f"predict {name} json", [*flags, "--json"]
    yield "demo", ["demo", "--quick", "--steps", "2", "--json", "--out", str(scratch / "demo")]
    yield "demo terminal", ["demo", "--quick", "--steps", "2", "--out", str(scratch / "demo")]


def main() -> None:
    """Write one file for each command, and one for each file that a command left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="", help="words that a command's name has to contain, such as 'report'")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    scratch = Path(tempfile.mkdtemp(prefix="same-output-"))
    for name, words in commands(arguments.runs.resolve(), scratch):
        if not all(word in name for word in arguments.only.split()) and not name.startswith(("simulate", "import")):
            continue
        result = CliRunner().invoke(app, words, prog_name="coordsim")
        text = f"{result.stdout}\n--- stderr ({result.exit_code})\n{result.stderr}"
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            text += f"\n--- {result.exception!r}\n"
        text = _WALL.sub(r"\1masked", text).replace(str(scratch), "SCRATCH").replace(str(DATA), "DATA")
        (arguments.out / f"{name}.txt").write_text(text)
    for path in sorted(scratch.rglob("*")):
        if path.is_file():
            kept = path.name == "manifest.json"
            text = path.read_text() if kept else hashlib.sha256(path.read_bytes()).hexdigest() + "\n"
            name = str(path.relative_to(scratch)).replace("/", "_")
            (arguments.out / f"file {name}").write_text(text.replace(str(DATA), "DATA"))
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
