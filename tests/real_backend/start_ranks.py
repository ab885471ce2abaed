"""Starts the ranks of a script as ``torchrun --standalone`` does, without importing torch for itself.

    python start_ranks.py RANKS SCRIPT [ARGUMENT ...]

With 0 ranks it is one process that nobody has told that it is a rank, and its exit code is the command's.

Ranks are forks of a server that has torch loaded where there is one (:mod:`tests.real_backend.warm`), and fresh
processes otherwise. The first rank that fails ends the others, and the exit code is 1 then; rank 0 hosts the store.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.real_backend import warm
from tests.real_backend.ports import free_port


def start(arguments: list[str], environment: dict[str, str]) -> warm.Process | subprocess.Popen[bytes]:
    """One process."""
    if warm.SERVER in os.environ:
        return warm.Process(arguments, environment, os.getcwd(), (0, 1, 2), os.environ[warm.SERVER])
    return subprocess.Popen([sys.executable, *arguments], env=environment)


def main(ranks: int, script: list[str]) -> int:
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks),
              "LOCAL_WORLD_SIZE": str(ranks)}  # fmt: skip
    environments = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
    running = [start(script, {**os.environ, **each}) for each in environments or [{}]]
    while any(process.poll() is None for process in running):
        if any(process.poll() for process in running):
            for process in running:
                process.terminate()
        time.sleep(0.02)
    return int(any(process.returncode for process in running)) if ranks else int(running[0].returncode or 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
