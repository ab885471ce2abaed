"""Why a command's Python processes have no hooks, and the remedy; ``/proc`` shows how each was started."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from real_backend.profile import WANTED
from real_backend.profile.launch import SITE

_IN_SCRIPT = f"or begin the script with: import runpy; runpy.run_path({str(SITE / 'sitecustomize.py')!r})"


def reason(arguments: Sequence[str], variables: Mapping[str, str]) -> str | None:
    """Return what keeps hooks out of a Python process with these arguments and environment, and the remedy.

    The result is None if nothing does.
    """
    for flag, letters in (("-I", "I"), ("-E", "E"), ("-S", "S")):
        if any(letter in each for each in _flags(arguments) for letter in letters):
            ignores = "does not run sitecustomize" if flag == "-S" else "ignores PYTHONPATH"
            return f"python was started with {flag}, which {ignores}: leave {flag} out, {_IN_SCRIPT}"
    if WANTED not in variables:
        return (
            "its environment was cleared (env -i, sudo, a container, sbatch --export=NONE): pass the variables on, "
            "such as env -i $(env | grep -E '^(PATH|PYTHONPATH|COORDSIM_[A-Z_]*)=') COMMAND"
        )
    paths = variables.get("PYTHONPATH", "").split(os.pathsep)
    if str(SITE) not in paths:
        now = variables.get("PYTHONPATH", "")
        fix = f"export PYTHONPATH={now}:$PYTHONPATH" if now else "do not unset PYTHONPATH"
        return f"PYTHONPATH was replaced before it was started: write {fix}"
    return None


def _flags(arguments: Sequence[str]) -> list[str]:
    """Return the interpreter's own single-letter options, which stand before the script."""
    flags = []
    skip = False
    for argument in arguments[1:]:
        if skip:
            skip = False
            continue
        if not argument.startswith("-") or argument.startswith("--") or argument == "-":
            break
        letters = argument[1:]
        for place, letter in enumerate(letters):
            if letter in "cm":
                flags.append(letters[:place])
                return flags
            if letter in "WX":
                flags.append(letters[:place])
                skip = place + 1 == len(letters)
                break
        else:
            flags.append(letters)
    return flags


class Unhooked:
    """Watches the descendants of one process for Python processes without hooks."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._known: dict[int, str | None] = {}

    def look(self, hooked: Collection[int]) -> None:
        """Note each Python process below the root that has no hooks. Without ``/proc`` this does nothing."""
        for pid in _descendants(self._root):
            if pid in hooked or self._known.get(pid) is not None:
                continue
            with suppress(OSError):
                arguments = _words(pid, "cmdline")
                if arguments and os.path.basename(arguments[0]).startswith(("python", "pypy")):
                    pairs = (each.partition("=") for each in _words(pid, "environ"))
                    self._known[pid] = reason(arguments, {key: value for key, _, value in pairs})

    def why(self, hooked: Collection[int]) -> str | None:
        """Return the most frequent reason among processes without hooks; None if there was no such process."""
        reasons = [why for pid, why in self._known.items() if why is not None and pid not in hooked]
        return max(reasons, key=reasons.count, default=None)


def _words(pid: int, name: str) -> list[str]:
    return [each.decode(errors="replace") for each in Path(f"/proc/{pid}/{name}").read_bytes().split(b"\0") if each]


def _descendants(root: int) -> Iterable[int]:
    """Return the process and those that it has started, directly or indirectly."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    waiting, pids = [root], []
    while waiting:
        pid = waiting.pop()
        pids.append(pid)
        waiting += children.get(pid, [])
    return pids
