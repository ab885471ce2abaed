"""Maps exceptions to one line on stderr and an exit code. A traceback is always a bug of coordsim."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from coordsim.cli import console
from coordsim.cli.interrupt import INTERRUPTED
from coordsim.errors import EnvironmentProblem, InputError

VERBS = (
    "demo", "simulate", "profile", "import", "report", "calibrate", "predict", "validate", "export", "catalog",
    "doctor",
)  # fmt: skip
"""The verbs in the order of ``--help``."""
BAD_INPUT = 2
ENVIRONMENT = 3
PIPE_CLOSED = 141
"""128 + SIGPIPE: the reader of stdout, such as ``head``, has ended."""


class GuardedGroup(TyperGroup):
    """The verbs; errors that a user can meet are caught here for all of them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [verb for verb in VERBS if verb in self.commands]

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except InputError as error:
            for problem in error.problems:
                console.error(str(problem))
            raise typer.Exit(BAD_INPUT) from None
        except EnvironmentProblem as error:
            console.error(str(error))
            raise typer.Exit(ENVIRONMENT) from None
        except MemoryError:
            console.error("not enough memory; fewer --ranks or a smaller workload need less")
            raise typer.Exit(ENVIRONMENT) from None
        except KeyboardInterrupt:
            console.note("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _discard_stdout()
            raise typer.Exit(PIPE_CLOSED) from None
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            console.error(f"{place}{error.strerror or error}")
            raise typer.Exit(ENVIRONMENT) from None
        return result


def _discard_stdout() -> None:
    """Discard what is still buffered, so that the interpreter's last flush cannot fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
