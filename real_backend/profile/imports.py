"""Calls a function when a module has just been loaded, before its importer sees it; nothing is imported early."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

Loaded = Callable[[ModuleType], None]


class Watcher(MetaPathFinder):
    """The first of the import system's finders; it finds only the watched names, as the path finder does."""

    def __init__(self, watched: Mapping[str, Loaded]) -> None:
        """``watched`` maps a module's name to the function to call with the module, which must not raise."""
        self._watched = dict(watched)

    def install(self) -> None:
        for name in list(self._watched):
            if name in sys.modules:
                self._watched.pop(name)(sys.modules[name])
        sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._watched:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _NotifyingLoader(spec.loader, self._watched.pop(fullname))
        return spec


class _NotifyingLoader(Loader):
    """Wraps another loader and reports when that is done; the module then has its own loader again."""

    def __init__(self, loader: Loader, loaded: Loaded) -> None:
        self._loader, self._loaded = loader, loaded

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._loaded(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
