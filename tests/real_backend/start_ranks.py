"""Starts the ranks of a script as ``torchrun --standalone`` does, without importing torch for itself.

    python start_ranks.py RANKS SCRIPT

A launcher of its own costs a test one import of torch, which is a third of what a job of two ranks takes. The first
rank that fails ends the others, and the exit code is 1 then; rank 0 hosts the store.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time


def main(ranks: int, script: str) -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks),
              "LOCAL_WORLD_SIZE": str(ranks)}  # fmt: skip
    running = [
        subprocess.Popen([sys.executable, script], env={**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank})
        for rank in map(str, range(ranks))
    ]
    while any(process.poll() is None for process in running):
        if any(process.poll() for process in running):
            for process in running:
                process.terminate()
        time.sleep(0.02)
    return int(any(process.returncode for process in running))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
