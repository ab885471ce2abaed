"""Citations, links and examples in the documentation: what they point to exists, and what they show works."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

from coordsim.scenario.loading import load_scenario
from tests.record.ddp_job import Causes, Job
from tests.record.streams import write_records

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path
    for folder in ("coordsim", "real_backend", "tests", "analyses")
    for pattern in ("*.py", "*.toml")
    for path in (ROOT / folder).rglob(pattern)
)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

NUMBER = r"(?:V\d+|\d+(?:\.\d+)?[a-d]?)(?![\w%])"
CITATION = re.compile(rf"\bdocs/(\w+)\.md(?: ({NUMBER}(?:(?:, | and | to ){NUMBER})*))?")
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")
FOREIGN = re.compile(r"\bSEMANTICS\b|\bHOROVOD_CONTROL_PLANE\b|(?<!docs/)\bPUBLISHED\b|\bFAST_SIMULATION\b|\bshared/")
BEHAVIOUR_TEST = re.compile(r"^def test_b(\d+)_", re.MULTILINE)


@cache
def numbers(page: str) -> frozenset[str]:
    """What may be cited of a page: numbered headings, numbered paragraphs, first cells of numbered rows."""
    text, found, section = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"), set(), ""
    for line in text.splitlines():
        if heading := re.match(r"#+ (\d+)\.", line):
            section = heading[1]
            found.add(section)
        elif item := re.match(rf"\*\*({NUMBER})\*\*", line):
            found.add(item[1])
        elif row := re.match(rf"\| ({NUMBER}) \|", line):
            found.add(row[1] if row[1].startswith("V") else f"{section}.{row[1]}")
    return frozenset(found)


def citations() -> list[tuple[str, str, str]]:
    """(where, page, number or "") of every citation in the sources."""
    found = []
    for path in SOURCES:
        if path == Path(__file__).resolve():
            continue
        where = str(path.relative_to(ROOT))
        for match in CITATION.finditer(path.read_text(encoding="utf-8")):
            parts = re.findall(NUMBER, match[2] or "") or [""]
            found += [(where, match[1], number) for number in parts]
    return found


def block(name: str) -> str:
    """The command between two marks in the README, cut out as ``.ci/run`` does."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    begin = readme.index(f"<!-- {name} -->")
    end = readme.index("<!-- end -->", begin)
    return "\n".join(line.removeprefix("    ") for line in readme[begin:end] if line.startswith("    "))


def fenced(language: str, number: int = 0) -> str:
    """A fenced example in ``language`` on the page of the Python names: the first, or another one."""
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(found) > number, language
    return str(found[number])


def test_every_citation_resolves():
    found = citations()
    assert len(found) > 60
    missing = [
        f"{where}: docs/{page}.md {number}"
        for where, page, number in found
        if not (ROOT / "docs" / f"{page}.md").is_file() or (number and number not in numbers(page))
    ]
    assert not missing


@pytest.mark.parametrize(
    ("page", "has", "lacks"),
    [
        ("semantics", {"1.1", "1.5", "5.6", "7b", "13"}, {"1.6", "14"}),
        ("horovod", {"2.4", "2.7", "3.5", "12", "13.1", "13.39"}, {"2.9", "13.40"}),
        ("published", {"V1", "V25", "10"}, {"V10", "11"}),
    ],
)
def test_numbers_are_read_off_a_page(page, has, lacks):
    assert has <= numbers(page)
    assert not lacks & numbers(page)


def test_nothing_outside_the_project_is_cited():
    mine = Path(__file__).resolve()
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in (*SOURCES, *PAGES)
        if path != mine
        for match in FOREIGN.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not found


def test_every_behaviour_names_its_tests_and_every_test_its_behaviour():
    rows = re.findall(r"^\| (\d+) \|.*\| (.*) \|$", (ROOT / "docs/horovod.md").read_text("utf-8"), re.MULTILINE)
    said = {int(number): set(re.findall(r"`((?:real/)?test_\w+\.py)`", files)) for number, files in rows}
    assert sorted(said) == list(range(1, 40))
    there: dict[int, set[str]] = {number: set() for number in said}
    for folder, prefix in (("protocol", ""), ("real_backend", "real/")):
        for path in (ROOT / "tests" / folder).glob("test_*.py"):
            for number in BEHAVIOUR_TEST.findall(path.read_text(encoding="utf-8")):
                there[int(number)].add(prefix + path.name)
    assert said == there


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_resolves(page):
    targets = [target for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    assert not [target for target in targets if not (page.parent / target).exists()]


def test_the_python_pages_scenario_loads(tmp_path):
    text = fenced("toml")
    (tmp_path / "job.toml").write_text(text, encoding="utf-8")
    assert load_scenario(tmp_path / "job.toml").ranks == tomllib.loads(text)["ranks"]


def test_the_python_pages_example_runs(tmp_path, monkeypatch, capsys):
    (tmp_path / "job.toml").write_text(fenced("toml"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(compile(fenced("python"), "python.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "step_time_ns" in shown
    assert "exposed_collective" in shown


def test_the_python_pages_examples_of_runs_run(tmp_path, monkeypatch, capsys):
    write_records(tmp_path / "profile", Job(causes=Causes(DATA_LATE=30)).records())
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number in (1, 2):
        exec(compile(fenced("python", number), "python.md", "exec"), names)
    assert "rank 1 is late" in capsys.readouterr().out


def test_ci_runs_the_readmes_command():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "sed -n '/<!-- tests -->/,/<!-- end -->/s/^    //p' README.md" in script
    assert 'bash -c "$command"' in script
    command = block("tests")
    assert "\n" not in command
    assert command.endswith("-m pytest")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(re.findall(r"\[(\w+)\]", command)) <= set(extras)


def test_the_readmes_demo_is_one_line():
    command = block("demo")
    assert "\n" not in command
    assert command.endswith("coordsim demo")


def test_the_tables_of_keys_are_as_the_keys_are_declared():
    """``python -m coordsim.scenario.reference docs/scenario.md`` makes them anew."""
    from coordsim.scenario.reference import TABLES, with_tables

    page = (ROOT / "docs" / "scenario.md").read_text(encoding="utf-8")
    assert with_tables(page) == page
    assert set(re.findall(r"<!-- keys: (\S+) -->\n\| key", page)) == set(TABLES)
