"""What a person reads: each group in a sentence, each finding with its evidence, and nothing twice."""

from __future__ import annotations

from pathlib import Path

from coordsim.formats.flight_recorder import import_dumps
from coordsim.report.imported import import_report
from coordsim.report.tables import Page
from tests.formats.flight_recorder.jobs import Rank, written
from tests.formats.flight_recorder.test_healthy_jobs import DATA, dumps


def screen(job: str) -> str:
    result = import_dumps(dumps(DATA / job))
    facts = {
        "format": result.format, "files": result.files, "found": result.summary, "unknown": result.unknown,
        "not_read": {}, "gives": {"run": False, "workload": False, "cluster": False},
    }  # fmt: skip
    return import_report(facts, job, Page(width=2000))


def test_a_healthy_job_says_so_for_every_group() -> None:
    lines = screen("cases/F_2d_mesh").splitlines()
    assert "  - group 1 (tp), ranks 0, 1: calls 1 to 3; no difference" in lines
    assert "  - group 2 (tp), ranks 2, 3: calls 1 to 4; no difference" in lines
    assert not any("behind" in line for line in lines)


def test_a_finding_stands_once_with_its_evidence() -> None:
    text = screen("shapes")
    assert text.count("the size differs: rank 3 called gloo:all_reduce of 12 Float (48 B)") == 1
    assert "1 finding" in text


def test_names_cannot_steer_a_terminal(tmp_path: Path) -> None:
    name = "\x1b[31mred\x07\u202e\nnew"
    ranks = [Rank(rank, {name: ("\x1b[0m", (0, 1))}) for rank in range(2)]
    for rank in ranks:
        rank.call(name, "all_reduce\x1b[2J", [4 + rank.rank], dtype="Fl\x1boat")
    result = import_dumps(written(tmp_path, ranks))
    texts = [result.summary["groups"][0]["text"], *result.summary["kinds"], *result.unknown.values()]
    assert all(text.isprintable() for text in texts)
    assert result.summary["groups"][0]["name"] == "\\x1b[31mred\\x07\\u202e\\nnew"
