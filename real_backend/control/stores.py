"""Stores in which ranks leave what the others need to find them: torchrun's, or a folder for ranks without torch."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Protocol

from coordsim.record.files import whole_file


class Store(Protocol):
    """A map of keys to bytes that all ranks see. ``torch.distributed.Store`` is one."""

    def set(self, key: str, value: str) -> None: ...

    def get(self, key: str) -> bytes:
        """Block until the key is set. Raises an exception of the store after a time-out of its own."""
        ...


class FolderStore:
    """A store in a folder that all ranks see, for ranks without torch on one machine or a shared file system."""

    def __init__(self, folder: Path, timeout_s: float = 60.0) -> None:
        self._folder = folder
        self._timeout_s = timeout_s
        folder.mkdir(parents=True, exist_ok=True)

    def set(self, key: str, value: str) -> None:
        with whole_file(self._path(key)) as fresh:
            fresh.write_text(value)

    def get(self, key: str) -> bytes:
        """Block until the key is set. Raises TimeoutError."""
        path, end = self._path(key), time.monotonic() + self._timeout_s
        while not path.exists():
            if time.monotonic() > end:
                raise TimeoutError(f"no rank has set {key!r} within {self._timeout_s:g} s in {self._folder}")
            time.sleep(0.005)
        return path.read_bytes()

    def _path(self, key: str) -> Path:
        return self._folder / key.replace(os.sep, "_")
