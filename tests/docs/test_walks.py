"""The walks of the tutorial, and what the guides show, run as a reader would type them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.walks import DOCS, Block, Command, Output, blocks, commands, differences, walk

PAGES = sorted(page for folder in ("tutorial", "guides") for page in (DOCS / folder).glob("*.md"))
WALKS = [page for page in PAGES if any(block.language == "console" for block in blocks(page))]


@pytest.mark.long
@pytest.mark.parametrize("page", WALKS, ids=lambda page: page.stem)
def test_a_pages_commands_do_what_it_shows(page: Path, tmp_path: Path) -> None:
    wrong = [
        f"$ {command.line}\n" + "\n".join(problems)
        for command, output in walk(page, tmp_path)
        if (problems := differences(command, output))
    ]
    assert not wrong, "\n\n".join(wrong)


def test_both_walks_of_the_tutorial_are_run() -> None:
    assert {"simulate", "profile-to-predict"} <= {page.stem for page in WALKS if page.parent.name == "tutorial"}


@pytest.mark.parametrize(
    ("shown", "same"),
    [
        (("one", "two 2", "three"), True),
        (("one", "...", "three"), True),
        (("...", "two ...", "..."), True),
        (("note",), True),
        (("one", "three"), False),
        (("two 2",), False),
        (("...", "three", "...", "one"), False),
        (("one", "two 3"), False),
    ],
)
def test_shown_lines_are_compared_in_order(shown: tuple[str, ...], same: bool) -> None:
    output = Output(0, "one\ntwo 2\nthree\n", "note\n")
    assert (not differences(Command("x", shown), output)) is same


def test_where_numbers_vary_words_and_ranks_are_compared() -> None:
    output = Output(0, "  late   rank 1 is late: 36 ms\n      (33 to 39)\n", "")
    assert not differences(Command("x", ("late   rank 1 is late: 5.1 ms (4 to", "6)"), numbers_vary=True), output)
    assert not differences(Command("x", ("...", "rank 1 ...", "...", "(1 to 2)"), numbers_vary=True), output)
    assert differences(Command("x", ("late   rank 0 is late: 5.1 ms (4 to 6)",), numbers_vary=True), output)
    assert differences(Command("x", ("late   rank 1 is early: 5.1 ms (4 to 6)",), numbers_vary=True), output)


def test_another_exit_code_than_the_stated_one_is_a_difference() -> None:
    assert differences(Command("x", ()), Output(2, "", ""))
    assert not differences(Command("x", (), exit_code=2), Output(2, "", ""))


def test_a_block_is_read_with_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- numbers vary -->\n<!-- exit: 2 -->\n```console\n$ a \\\n> b\nshown\n$ c\n```\n")
    (block,) = blocks(page)
    assert block == Block("console", "$ a \\\n> b\nshown\n$ c\n", ("numbers vary", "exit: 2"))
    assert list(commands(block)) == [Command("a b", ("shown",), True, 2), Command("c", (), True, 2)]
