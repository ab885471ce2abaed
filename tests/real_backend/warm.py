"""Python processes that do what ``python ARGUMENTS`` does, forked from a server that has torch loaded already.

A rank of a training script imports for three seconds of CPU before its first line, and is taken apart for two after
its last; a fork of the server takes a few hundredths. The fork has the caller's environment, folder, process group and
files, runs ``sitecustomize`` from its ``PYTHONPATH`` (the hooks of ``coordsim profile`` come from there), and ends as
an interpreter does: exit handlers, uncaught errors, exit codes and signals are the real ones (:func:`_run`).

What differs: modules of :data:`PRELOADED` are there before the hooks are (:func:`_relink` makes up for that), hashes of
strings are alike in all forks, and nothing is taken apart at the end. Tests with ``cold`` start the real thing.

Only the standard library is imported here, so that a light process can ask for forks, too.
"""

from __future__ import annotations

import ast
import atexit
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import IO, Any

SERVER = "WARM_PROCESSES"
"""Variable: the server's socket, for processes that ask for forks themselves."""
PRELOADED = (
    "torch._dynamo", "torch.distributed.fsdp", "torch.nn.parallel", "torch.utils.data", "real_backend.optimizer",
    "real_backend.profile.install", "coordsim.cli.profile",
)  # fmt: skip
"""And what the functions of the last one import."""
LOOK_EVERY_S = 0.02
"""The server looks this often for children that have ended."""


_plain_exit = os._exit
"""Without the hooks that a child puts there."""


# For those who ask.


class Process:
    """One process that was asked for; the server kills it when nobody holds this object's connection any more."""

    def __init__(
        self, arguments: Sequence[str], env: Mapping[str, str], cwd: str, files: Sequence[int], server: str
    ) -> None:
        """``arguments``: of ``python``. ``files``: descriptors for stdin, stdout and stderr. It joins the caller's
        process group, which must be of the server's session. Raises OSError."""
        wanted = {"arguments": list(arguments), "env": dict(env), "cwd": cwd, "group": os.getpgrp()}
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(server)
        data = json.dumps(wanted).encode()
        socket.send_fds(self._connection, [len(data).to_bytes(4, "big")], list(files))
        self._connection.sendall(data)
        self._answers = self._connection.makefile("r")
        self.pid: int = self._answer()
        self.returncode: int | None = None

    def _answer(self) -> int:
        line = self._answers.readline()
        if not line:
            raise OSError("the server of warm processes has gone")
        return int(line)

    def wait(self, timeout_s: float | None = None) -> int:
        """Its exit code, minus the signal's number if one killed it. Raises TimeoutError."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout_s)[0]:
                raise TimeoutError(f"process {self.pid} had not ended after {timeout_s:g} s")
            self.returncode = self._answer()
            self._answers.close()
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        with suppress(TimeoutError):
            self.wait(0)
        return self.returncode

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


@cache
def server() -> str:
    """The socket of this process's server, which is started once and ends with this process."""
    folder = tempfile.mkdtemp(prefix="warm-")
    path = os.path.join(folder, "socket")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(
        [sys.executable, __file__, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        cwd=folder,
    )  # fmt: skip
    assert running.stdin is not None
    assert running.stdout is not None

    def end() -> None:
        running.stdin.close()
        running.wait()
        running.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    assert running.stdout.readline() == "ready\n", "the server of warm processes did not start"
    return path


def call(
    arguments: Sequence[str], cwd: Path, env: Mapping[str, str], timeout_s: float = 300.0
) -> subprocess.CompletedProcess[str]:
    """``python *arguments`` to its end, as :func:`subprocess.run` gives it. Raises TimeoutError."""
    at = server()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors, open(os.devnull) as nothing:
        files = [nothing.fileno(), out.fileno(), errors.fileno()]
        process = Process(arguments, {**env, SERVER: at}, str(cwd), files, at)
        try:
            code = process.wait(timeout_s)
        except TimeoutError as late:
            process.kill()
            raise TimeoutError(f"{late}; stdout: {_whole(out)[-2000:]}; stderr: {_whole(errors)}") from None
        return subprocess.CompletedProcess(list(arguments), code, _whole(out), _whole(errors))


def _whole(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


# The server.


@dataclass
class _Child:
    pid: int
    caller: socket.socket


@dataclass
class _Order:
    """What a child is to become."""

    arguments: list[str]
    env: dict[str, str]
    cwd: str
    group: int
    files: list[int]


def _serve(path: str) -> _Order:
    """Fork whoever is asked for until stdin ends, which ends the server as well. Returns in children only."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    os.write(1, b"ready\n")
    children: list[_Child] = []
    while True:
        watched = [listener, sys.stdin, *(child.caller for child in children)]
        ready = select.select(watched, [], [], LOOK_EVERY_S if children else None)[0]
        if sys.stdin in ready:
            for child in children:
                _kill(child)
            os._exit(0)
        for child in children:
            if child.caller in ready:  # it says nothing more: it has gone
                _kill(child)
        if listener in ready:
            caller, _ = listener.accept()
            order = _taken(caller)
            pid = os.fork()
            if pid == 0:
                for each in (listener, caller, *(child.caller for child in children)):
                    each.close()
                return order
            for each in order.files:
                os.close(each)
            _tell(caller, pid)
            children.append(_Child(pid, caller))
        children = [child for child in children if not _ended(child)]


def _taken(caller: socket.socket) -> _Order:
    length, files, _, _ = socket.recv_fds(caller, 4, 3)
    data = caller.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL)
    return _Order(**json.loads(data), files=files)


def _tell(caller: socket.socket, number: int) -> None:
    with suppress(OSError):
        caller.sendall(f"{number}\n".encode())


def _kill(child: _Child) -> None:
    with suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)


def _ended(child: _Child) -> bool:
    pid, status = os.waitpid(child.pid, os.WNOHANG)
    if pid == 0:
        return False
    _tell(child.caller, os.waitstatus_to_exitcode(status))
    child.caller.close()
    return True


def _become(order: _Order) -> None:
    """Run what was asked for, in this process."""
    with suppress(OSError):  # the group's last process has ended, or it is another session's
        os.setpgid(0, order.group)
    for target, file in enumerate(order.files):
        os.dup2(file, target)
        os.close(file)
    os.chdir(order.cwd)
    os.environ.clear()
    os.environ.update(order.env)
    sys.modules["numpy"].random.seed()  # as no two processes' are alike
    is_module = order.arguments[0] == "-m"
    sys.argv = order.arguments[is_module:]
    first = order.cwd if is_module else os.path.dirname(os.path.abspath(sys.argv[0]))
    theirs = [each for each in order.env.get("PYTHONPATH", "").split(os.pathsep) if each]
    sys.path[:] = [first, *theirs, *sys.path]
    importlib.invalidate_caches()
    _customize()
    if is_module:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        return
    main = ModuleType("__main__")
    main.__file__ = sys.argv[0]
    sys.modules["__main__"] = main
    exec(compile(Path(sys.argv[0]).read_bytes(), sys.argv[0], "exec"), main.__dict__)


def _customize() -> None:
    """Load ``sitecustomize`` as :mod:`site` does."""
    before = {name: dict(vars(module)) for name, module in list(sys.modules.items()) if name.startswith("torch")}
    sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # noqa: F401
    except ImportError:
        return
    _relink(before)


def _relink(before: Mapping[str, dict[str, Any]]) -> None:
    """What hooks have replaced in a module of torch is replaced wherever it had been imported from there."""
    replaced = {}
    for name, old in before.items():
        now = vars(sys.modules[name])
        replaced |= {id(value): (value, now[key]) for key, value in old.items() if now.get(key) is not value}
    if not replaced:
        return
    for module in list(sys.modules.values()):
        for key, value in list(vars(module).items()):
            if id(value) in replaced:
                setattr(module, key, replaced[id(value)][1])


def _imported_by(module: ModuleType) -> set[str]:
    """The modules from which ``module`` imports, anywhere in its text."""
    tree = ast.parse(Path(str(module.__file__)).read_bytes())
    return {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}


def _main(path: str) -> _Order:
    """Load everything, then serve."""
    del sys.path[0]  # the folder of this file
    loaded = [importlib.import_module(name) for name in PRELOADED]
    for name in _imported_by(loaded[-1]):
        importlib.import_module(name)
    import torch

    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)  # the first one imports for a second
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # collections of children leave these pages shared
    return _serve(path)


def _run(order: _Order) -> None:
    """:func:`_become`, and then end as an interpreter does, but for what it takes apart (which takes two seconds)."""
    code = 0
    try:
        _become(order)
    except SystemExit as ending:
        code = _exit_code(ending.code)
    except BaseException as error:
        sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    _plain_exit(code)


def _exit_code(code: object) -> int:
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    print(code, file=sys.stderr)
    return 1


if __name__ == "__main__":
    _run(_main(sys.argv[1]))
