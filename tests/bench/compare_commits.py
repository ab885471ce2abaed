"""Do two commits answer the same? ``python -m tests.bench.compare_commits OLD [NEW]`` compares them byte by byte.

A worktree of each commit is made in a temporary folder, and :mod:`tests.bench.observations` of *this* checkout is run
on both with this interpreter: resolved scenarios and hashes of all catalog entries, messages of wrong scenarios,
traces of scenarios made in code by both engines, and the verbs of the command line with ``--json`` and with the files
that they write. NEW is the working tree where it is not given; each may also be the folder of a checkout, whose kernels
are compiled already. Prints what differs; exits with 1 when anything does. ``--only traces`` asks a part.

Only what has to vary is left out of the comparison (:data:`VARIES`): how long a simulation took, and the version.
``--records FOLDER``: a folder of ranks' records (COORDSIM_RECORD) for the verbs that read one; else they are left out.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OBSERVATIONS = Path(__file__).with_name("observations.py")
VARIES = (
    (re.compile(r'("(?:engine_)?wall_s"): [0-9.e+-]+'), r"\1: T"),
    (re.compile(r'("version"): "[^"]*"'), r'\1: "V"'),
    (re.compile(r"\b(\w+ engine)(, | in )[0-9.]+ (?:ms|s)\b"), r"\1\2T"),
)
"""(pattern, what stands in its place): times of this machine, and versions."""
PARTS = ("resolved", "wrong", "traces", "verbs")
MOST_LINES = 12
"""Of one difference, printed."""


def observed(tree: Path, inputs: Path, scratch: Path, parts: list[str]) -> dict[str, str]:
    """The answers of the tree, without what varies."""
    work = scratch / "work"
    work.mkdir(parents=True)
    variables = {**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "80", "PYTHONHASHSEED": "0"}
    command = [sys.executable, str(OBSERVATIONS), str(inputs), str(scratch / "answers.json"), *parts]
    subprocess.run(command, env=variables, cwd=work, check=True)
    answers: dict[str, str] = json.loads((scratch / "answers.json").read_text())
    for pattern, instead in VARIES:
        answers = {question: pattern.sub(instead, answer) for question, answer in answers.items()}
    return answers


def differences(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """One text for each question that is answered differently, or by one of the two only."""
    texts = [f"only before: {question}" for question in old if question not in new]
    texts += [f"only now: {question}" for question in new if question not in old]
    for question, before in old.items():
        after = new.get(question, before)
        if after != before:
            lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "now", "", "", 0, ""))
            texts.append("\n  ".join([question, *(line[:200] for line in lines[2:MOST_LINES])]))
    return texts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", help="a commit")
    parser.add_argument("new", nargs="?", help="a commit; the working tree where it is not given")
    parser.add_argument("--records", type=Path, help="a folder of ranks' records")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts of the questions")
    parser.add_argument("--keep", type=Path, help="write the answers of both to this folder")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="compare-commits-") as name:
        scratch = Path(name)
        inputs = scratch / "inputs"
        shutil.copytree(ROOT / "tests" / "data", inputs / "data", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
        if wanted.records is not None:
            shutil.copytree(wanted.records, inputs / "records")
        trees = {"old": _tree(wanted.old, scratch), "new": ROOT if wanted.new is None else _tree(wanted.new, scratch)}
        try:
            answers = {side: observed(tree, inputs, scratch / side, wanted.only) for side, tree in trees.items()}
        finally:
            for tree in trees.values():
                if tree.is_relative_to(scratch):
                    subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)
    if wanted.keep is not None:
        wanted.keep.mkdir(parents=True, exist_ok=True)
        for side, texts in answers.items():
            (wanted.keep / f"{side}.json").write_text(json.dumps(texts, indent=1))
    texts = differences(answers["old"], answers["new"])
    for text in texts:
        print(text)
    print(f"{len(answers['old'])} answers, {len(texts)} of them differ")
    return bool(texts)


def _tree(commit: str, scratch: Path) -> Path:
    """A checkout of the commit; the folder itself where it names one."""
    if (Path(commit) / "coordsim").is_dir():
        return Path(commit).resolve()
    tree = scratch / f"tree-{commit.replace('/', '-')}"
    subprocess.run(["git", "worktree", "add", "--detach", "--quiet", str(tree), commit], cwd=ROOT, check=True)
    return tree


if __name__ == "__main__":
    sys.exit(main())
