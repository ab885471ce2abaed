"""``coordsim doctor``: what this machine has, and what is missing. It imports nothing that might be broken."""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from coordsim import __version__
from coordsim.cli import console
from coordsim.cli.guard import ENVIRONMENT
from coordsim.cli.kernels import kernel_cache

SCHEMA = "coordsim.doctor/1"
PYTHON = ((3, 11), (3, 15))
"""The first version that works, and the first that is not known to work."""
REQUIRED = {
    "numpy": "1.26", "numba": "0.60", "simpy": "4.1", "pandas": "2.2", "matplotlib": "3.8", "scipy": "1.12",
    "pydantic": "2.7", "typer": "0.12", "rich": "13", "tomlkit": "0.13",
}  # fmt: skip
"""Lowest versions, as in pyproject.toml (a test compares them)."""
OPTIONAL = {"torch": "torch"}
"""Package -> the extra that installs it."""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check the installation."""
    from coordsim.report.doctor import doctor_table

    facts = examine()
    if as_json:
        console.data_json(facts)
    else:
        console.data(doctor_table(facts, console.page()))
    for problem in facts["problems"]:
        console.error(problem)
    if facts["problems"]:
        console.next_command("python -m pip install --upgrade coordsim")
        raise typer.Exit(ENVIRONMENT)
    console.next_command("coordsim demo")


def examine() -> dict[str, Any]:
    """Return all that ``doctor`` reports, as a JSON object."""
    required = {name: {"version": installed(name), "needs": least} for name, least in REQUIRED.items()}
    return {
        "schema": SCHEMA,
        "coordsim": __version__,
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "required": required,
        "optional": {name: {"version": installed(name), "extra": extra} for name, extra in OPTIONAL.items()},
        "machine": {"cores": cores(), "memory_bytes": memory_bytes(), "system": platform.platform(terse=True)},
        "kernel_cache": asdict(kernel_cache()),
        "terminal": {
            "stdout_is_terminal": sys.stdout.isatty(),
            "columns": console.page().width,
            "colour": sys.stdout.isatty() and console.colour_wanted(),
            "encoding": sys.stdout.encoding,
        },
        "problems": problems(required),
    }


def problems(required: dict[str, dict[str, str | None]]) -> list[str]:
    """Return what keeps coordsim from working here, one sentence each."""
    sentences = []
    if not PYTHON[0] <= sys.version_info[:2] < PYTHON[1]:
        sentences.append(f"Python {platform.python_version()} is not among 3.11 to 3.14")
    for name, facts in required.items():
        have, least = facts["version"], facts["needs"]
        if have is None:
            sentences.append(f"{name} is missing: pip install '{name}>={least}'")
        elif _numbers(have) < _numbers(least or ""):
            sentences.append(f"{name} {have} is older than {least}: pip install '{name}>={least}'")
    return sentences


def installed(package: str) -> str | None:
    """Return the version of a package without importing it; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int | None:
    """Return the size of physical memory; None if the system does not state it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of a version: ``"2.13.0+cpu"`` gives (2, 13, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
