"""A page's commands, run in order in one folder, as a reader would type them.

What a page marks, and how it is understood:

- A ``console`` block holds commands, which begin with ``$ `` (a line that ends in a backslash goes on in the next one),
  and below each of them lines that it prints. Lines are compared with what the command writes to stdout or stderr, in
  order; a line ``...`` stands for any lines that are left out, ``...`` in a line for anything. The exit code must be 0,
  or what ``<!-- exit: N -->`` before the block says.
- ``<!-- numbers vary -->`` before a block: numbers with their units, bars, and where lines end, are not compared (times
  of real processes); which rank is named is compared.
- ``<!-- not run -->`` before a block: for the eye alone, such as an installation or a job on a cluster.
- ``<!-- file: NAME -->`` before any block: its content is written to that file of the folder.
- A ``python`` block is run by a fresh interpreter, unless it is a file or not run; a block with ``<!-- output -->``
  behind it shows what it prints.

``python -m tests.docs.walks PAGE`` runs a page and prints each command with all that it writes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

BLOCK = re.compile(r"((?:^<!-- [^\n]* -->\n)*)^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"^<!-- (.*) -->$", re.MULTILINE)
BAR = re.compile("[▏▎▍▌▋▊▉█]+")
QUANTITY = re.compile(r"(?<!rank )(?<!rank \d)-?\d[\d,.]*(?:\s?(?:ns|us|ms|s|%|MB|kB|KiB|MiB|GiB|GB))?(?![\w-])\*?")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the marks before it."""

    language: str
    text: str
    marks: tuple[str, ...]

    def mark(self, name: str) -> str | None:
        """What stands behind ``name:`` in a mark; "" for a mark that is its name alone; None without it."""
        for mark in self.marks:
            if mark == name or mark.startswith(f"{name}: "):
                return mark[len(name) + 2 :]
        return None


@dataclass(frozen=True)
class Command:
    """One command of a ``console`` block."""

    line: str
    shown: tuple[str, ...]
    numbers_vary: bool = False
    exit_code: int = 0


@dataclass(frozen=True)
class Output:
    """What a command wrote."""

    exit_code: int
    stdout: str
    stderr: str


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    for marks, language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        yield Block(language, text, tuple(MARK.findall(marks)))


def commands(block: Block) -> Iterator[Command]:
    """The commands of a ``console`` block with the lines that are shown below each."""
    code = int(block.mark("exit") or 0)
    vary = block.mark("numbers vary") is not None
    lines = block.text.replace("\\\n> ", "").replace("\\\n", "").splitlines()
    starts = [index for index, line in enumerate(lines) if line.startswith("$ ")]
    assert starts[:1] == [0], f"a console block begins with a command: {block.text[:60]!r}"
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield Command(lines[start][2:], tuple(lines[start + 1 : end]), vary, code)


def run(line: str, folder: Path) -> Output:
    """A command by the shell, with this interpreter's scripts first on the path."""
    environment = {
        **os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "80",
        "PYTHONPATH": str(ROOT), "COORDSIM": str(ROOT), "OMP_NUM_THREADS": "1", "NO_COLOR": "1",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8",
        timeout=600, check=False,
    )  # fmt: skip
    return Output(done.returncode, done.stdout, done.stderr)


def differences(command: Command, output: Output) -> list[str]:
    """What the page says of a command and the command does not do; empty when all is as shown.

    Shown lines are compared piece by piece, a piece being the lines between two ``...``. The first one has to be
    printed at the beginning of stdout or of stderr, others anywhere behind the piece before them in that stream.
    """
    wrong = []
    if output.exit_code != command.exit_code:
        wrong.append(f"exit code {output.exit_code}, not {command.exit_code}")
    streams = [_comparable(text.splitlines(), command) for text in (output.stdout, output.stderr)]
    at = [0, 0]
    for number, piece in enumerate(_pieces(command.shown)):
        pattern = re.compile(re.escape(_comparable(piece, command)).replace(re.escape("..."), "[^\\n]*?"))
        matches = [pattern.search(stream, start) for stream, start in zip(streams, at, strict=True)]
        first = number == 0 and command.shown[0].strip() != "..."
        for index, match in enumerate(matches):
            if match and (match.start() == 0 or not first):
                at[index] = match.end() - 1
                break
        else:
            wrong.append("not printed:\n" + "\n".join(piece))
    return wrong


def _pieces(shown: Sequence[str]) -> list[list[str]]:
    pieces: list[list[str]] = [[]]
    for line in shown:
        if line.strip() == "...":
            pieces.append([])
        else:
            pieces[-1].append(line)
    return [piece for piece in pieces if piece]


def _comparable(lines: Sequence[str], command: Command) -> str:
    """One text, beginning and ending with what separates lines, or words where numbers vary."""
    if command.numbers_vary:
        return f" {' '.join(' '.join(QUANTITY.sub('#', BAR.sub('', line)) for line in lines).split())} "
    return "\n" + "".join(f"{line.rstrip()}\n" for line in lines)


def walk(page: Path, folder: Path) -> Iterator[tuple[Command, Output]]:
    """Write the page's files, run its commands and its Python, in order."""
    there = [block for block in blocks(page) if block.mark("not run") is None]
    for block, after in zip(there, [*there[1:], None], strict=True):
        name = block.mark("file")
        if name is not None:
            assert "/" not in name, name
            (folder / name).write_text(block.text, encoding="utf-8")
        elif block.language == "console":
            for command in commands(block):
                yield command, run(command.line, folder)
        elif block.language == "python":
            (folder / "example.py").write_text(block.text, encoding="utf-8")
            shown = after.text if after is not None and after.mark("output") is not None else "...\n"
            yield Command("python example.py", tuple(shown.splitlines())), run("python example.py", folder)


def main() -> None:
    """Run a page and show everything."""
    with tempfile.TemporaryDirectory() as folder:
        for command, output in walk(Path(sys.argv[1]), Path(folder)):
            print(f"$ {command.line}\n{output.stdout}{output.stderr}", end="")
            print("".join(f"!! {each}\n" for each in differences(command, output)))


if __name__ == "__main__":
    main()
