"""What the pages say of commands, schemas and names is what the code has; every page can be reached."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from coordsim.cli import app
from tests.docs.walks import DOCS, ROOT

PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
CODE = re.compile(r"`(coordsim [^`\n]+)`|^(?: {4}|\$ )(coordsim .+(?:\\\n.*)*)$", re.MULTILINE)
SCHEMA = re.compile(r"\bcoordsim\.[a-z_.]+/\d+\b")
JSON_PAGE = DOCS / "reference" / "json.md"


def lines_of(page: Path) -> list[str]:
    """Every command of ``coordsim`` on a page, in code spans, indented blocks and console blocks."""
    found = (span or block for span, block in CODE.findall(page.read_text(encoding="utf-8")))
    return [line.replace("\\\n", " ").partition("#")[0] for line in found]


def wrong_with(line: str) -> list[str]:
    """Verbs and options of a command line that the command line's own parser does not have."""
    command: Any = typer.main.get_command(app)
    words = line.partition(" -- ")[0].removesuffix(" --").split()[1:]
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    below = getattr(command, "commands", {})
    if below and words and re.fullmatch(r"[a-z]+", words[0]):
        return [f"{line}: no verb {words[0]}"]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    return [f"{line}: no option {option}" for option in re.findall(r"(?<![\w-])--\w[\w-]*", " ".join(words))
            if option not in known]  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_on_a_page_exists(page: Path) -> None:
    assert not [problem for line in lines_of(page) for problem in wrong_with(line)]


def test_commands_are_seen_wherever_they_stand() -> None:
    assert sum(len(lines_of(page)) for page in PAGES) > 100
    assert wrong_with("coordsim simulate job.toml --no-such-flag") == [
        "coordsim simulate job.toml --no-such-flag: no option --no-such-flag"
    ]
    assert wrong_with("coordsim simulat") == ["coordsim simulat: no verb simulat"]
    assert wrong_with("coordsim validate nowhere DIR") == ["coordsim validate nowhere DIR: no verb nowhere"]
    assert not wrong_with("coordsim profile [--steps 20] -- train --any thing")


def test_every_schema_of_the_code_is_on_the_json_page() -> None:
    files = (path for room in ("coordsim", "real_backend") for path in (ROOT / room).rglob("*.py"))
    code = {schema for path in files for schema in SCHEMA.findall(path.read_text(encoding="utf-8"))}
    page = JSON_PAGE.read_text(encoding="utf-8")
    rows = (row.split("|")[1] for row in page.splitlines() if row.startswith("| `coordsim."))
    listed = {schema for row in rows for schema in SCHEMA.findall(row)}
    assert len(code) > 20
    assert listed == code


def keys_on_the_page(schema: str) -> set[str]:
    """First cells of the table below a schema's heading."""
    section = JSON_PAGE.read_text(encoding="utf-8").partition(f"\n## {schema}\n")[2].partition("\n## ")[0]
    rows = (row.split("|")[1] for row in section.splitlines() if row.startswith("| `"))
    return {key for row in rows for key in re.findall(r"`(\w+)`", row)}


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """The JSON object that a command prints; ``{run}`` is a simulated run."""
    run = tmp_path_factory.mktemp("site") / "run"

    def ask(*words: str) -> dict[str, Any]:
        result = CliRunner().invoke(app, [word.format(run=run, root=ROOT) for word in words], prog_name="coordsim")
        assert result.exit_code == 0, result.stderr
        answer: dict[str, Any] = json.loads(result.stdout)
        return answer

    ask("simulate", "--workload", "resnet50", "--ranks", "6", "--steps", "1", "--json", "--out", "{run}")
    return ask


@pytest.mark.parametrize(
    "command",
    [
        "simulate --workload resnet50 --ranks 6 --steps 1 --json",
        "report {run} --json",
        "catalog --json",
        "catalog show summit --json",
        "doctor --json",
        "import {root}/tests/data/horovod_runs/tl_mpi_n2_cache.timeline.json.gz --json",
        "validate timeline {root}/tests/data/horovod_runs/tl_mpi_n2_cache.timeline.json.gz --json",
    ],
)
def test_the_json_page_has_every_key(printed: Callable[..., dict[str, Any]], command: str) -> None:
    found = printed(*command.split())
    schema = found.pop("schema")
    assert keys_on_the_page(schema) == set(found), schema


def test_the_index_reaches_every_page() -> None:
    """Sphinx says so as well, but only where it is installed."""
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    trees = "".join(re.findall(r"^```{toctree}\n(.*?)^```$", index, re.DOTALL | re.MULTILINE))
    entries = re.findall(r"^(?:[^<:\n][^<\n]*<)?([\w\[\]*/-]+)>?$", trees, re.MULTILINE)
    reached = {page for entry in entries for page in DOCS.glob(f"{entry}.md")} | {DOCS / "index.md"}
    assert reached == set(DOCS.rglob("*.md"))


def test_the_readme_links_to_every_guide_and_reference() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = {(ROOT / target).resolve() for target in re.findall(r"\]\((docs/[^)#]+)\)", readme)}
    below = {page for folder in ("tutorial", "guides", "reference") for page in (DOCS / folder).glob("*.md")}
    assert not below - linked


def test_the_markers_of_generated_text_are_known() -> None:
    """A marker that is spelt otherwise would leave a page empty."""
    texts = (page.read_text(encoding="utf-8") for page in PAGES)
    marks = {mark for text in texts for mark in re.findall(r"^<!-- generated: (.*) -->$", text, re.MULTILINE)}
    assert marks == {"commands", "changes", "names of coordsim", "names of real_backend"}
