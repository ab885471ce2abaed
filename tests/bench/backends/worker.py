"""One rank of one launch: any work on any arm, with one way to take times.

    python worker.py SPEC.json

A file on its own, so that Horovod's Python, which has no coordsim, can run it. ``SPEC.json`` is what
:func:`tests.bench.backends.launch.launch` writes; each rank leaves ``rank<r>.json`` in its folder. Times are
CLOCK_MONOTONIC's, which all processes of a machine share.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

POLL_S = 50e-6
"""Between looks at a Horovod handle, as in the recorded runs: its own ``synchronize`` looks once a millisecond."""


class Arm:
    """How one library reduces a step's tensors, in place, to their mean over the ranks."""

    rank: int
    ranks: int

    def prepare(self, tensors: list[torch.Tensor]) -> None:
        self.tensors = tensors
        self.names = [f"tensor.{index}" for index in range(len(tensors))]

    def step(self) -> float:
        """Submit all tensors, wait for all; returns when the last one was submitted."""
        raise NotImplementedError

    def counters(self) -> dict[str, int]:
        return {}

    def results(self) -> list[torch.Tensor]:
        return self.tensors

    def stop(self) -> None: ...


class Ours(Arm):
    """``real_backend``, with ``settings`` of the spec over the defaults."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import real_backend

        self.library = real_backend
        self.settings = settings
        self.start(settings)
        self.rank, self.ranks = real_backend.rank(), real_backend.size()

    def start(self, settings: dict[str, Any]) -> None:
        self.engine = self.library.init(**settings)
        self.observer = self.engine._observer

    def record(self, on: bool) -> None:
        """Between barriers, when nothing is queued: the recorder hears of what comes, or only who else listens."""
        from real_backend.engine.observer import Observer, Observers
        from real_backend.recorder import Recorder

        listening = self.observer._each if isinstance(self.observer, Observers) else (self.observer,)
        others = [each for each in listening if not isinstance(each, Recorder)]
        self.library.barrier()
        time.sleep(0.01)  # until the loop has told of the barrier's end
        self.engine._observer = self.observer if on else others[0] if others else Observer()
        self.engine._stamped = on
        del self.engine._stamps[:]
        self.library.barrier()

    def step(self) -> float:
        submit = self.library.allreduce_async_
        handles = [submit(tensor, name) for tensor, name in zip(self.tensors, self.names, strict=True)]
        submitted = time.monotonic()
        for handle in handles:
            handle.wait()
        return submitted

    def counters(self) -> dict[str, int]:
        return dict(self.engine.counters.snapshot())

    def stop(self) -> None:
        self.library.shutdown()


class Horovod(Arm):
    """Horovod for PyTorch; its controller is chosen by who launched us."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import horovod.torch as library

        self.library = library
        library.init()
        self.rank, self.ranks = library.rank(), library.size()

    def step(self) -> float:
        submit, poll = self.library.allreduce_async_, self.library.poll
        handles = [submit(tensor, name=name) for tensor, name in zip(self.tensors, self.names, strict=True)]
        submitted = time.monotonic()
        for handle in handles:
            while not poll(handle):
                time.sleep(POLL_S)
            self.library.synchronize(handle)
        return submitted

    def stop(self) -> None:
        self.library.shutdown()


class Gloo(Arm):
    """``torch.distributed.all_reduce`` one by one, then one division; ``together``: all at once, then wait."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import torch.distributed as library

        self.library = library
        self.together = settings.get("together", False)
        library.init_process_group("gloo")
        self.rank, self.ranks = library.get_rank(), library.get_world_size()

    def step(self) -> float:
        if self.together:
            handles = [self.library.all_reduce(tensor, async_op=True) for tensor in self.tensors]
            submitted = time.monotonic()
            for handle in handles:
                handle.wait()
        else:
            for tensor in self.tensors:
                self.library.all_reduce(tensor)
            submitted = time.monotonic()
        torch._foreach_div_(self.tensors, self.ranks)
        return submitted

    def stop(self) -> None:
        self.library.destroy_process_group()


class Gradients(torch.autograd.Function):
    """A backward pass that costs nothing: the gradients are there already."""

    @staticmethod
    def forward(context: Any, given: list[torch.Tensor], *parameters: torch.Tensor) -> torch.Tensor:
        context.given = given
        return torch.zeros((), requires_grad=True)

    @staticmethod
    def backward(context: Any, *_: torch.Tensor) -> Any:
        return (None, *(each.detach() for each in context.given))


class Model(torch.nn.Module):
    """One parameter a tensor; registered last to first, as in a network, so that DDP's buckets fill in order."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        super().__init__()
        self.given = list(reversed(tensors))
        self.all = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros_like(each)) for each in self.given])

    def forward(self) -> torch.Tensor:
        loss: torch.Tensor = Gradients.apply(self.given, *self.all)
        return loss


class Ddp(Gloo):
    """DistributedDataParallel over gloo with its defaults, but gradients that live in the buckets: one copy less."""

    def prepare(self, tensors: list[torch.Tensor]) -> None:
        super().prepare(tensors)
        self.model = Model(tensors)
        self.parallel = torch.nn.parallel.DistributedDataParallel(self.model, gradient_as_bucket_view=True)

    def step(self) -> float:
        for parameter in self.model.all:
            parameter.grad = None
        loss = self.parallel()
        submitted = time.monotonic()
        loss.backward()
        return submitted

    def results(self) -> list[torch.Tensor]:
        return [parameter.grad for parameter in reversed(self.model.all)]  # type: ignore[misc]


ARMS: dict[str, Callable[[dict[str, Any]], Arm]] = {"ours": Ours, "horovod": Horovod, "gloo": Gloo, "ddp": Ddp}


def timed_steps(arm: Arm, sizes: list[int], steps: int) -> dict[str, Any]:
    """``steps`` steps back to back; raises AssertionError when the last one's result is wrong."""
    arm.prepare([torch.full((size,), float(arm.rank + 1)) for size in sizes])
    starts, submits, ends, counters = [], [], [], []
    cpu_s = time.process_time()
    for _ in range(steps):
        starts.append(time.monotonic())
        submits.append(arm.step())
        ends.append(time.monotonic())
        if len(counters) < 2:
            counters.append(arm.counters())
    cpu_s = time.process_time() - cpu_s
    counters[1:] = [arm.counters()]
    mean = (arm.ranks + 1) / 2
    for index, result in enumerate(arm.results()):
        assert torch.allclose(result, torch.full_like(result, mean), rtol=1e-4), f"tensor {index} has a wrong value"
    return {"start": starts, "submitted": submits, "end": ends, "cpu_s": cpu_s, "counters": counters}


def run_steps(arm: Arm, spec: dict[str, Any]) -> dict[str, Any]:
    return timed_steps(arm, spec["sizes"], spec["steps"])


def run_idle(arm: Arm, spec: dict[str, Any]) -> dict[str, Any]:
    """CPU time of this process while it does nothing, after a few steps; share of one core."""
    timed_steps(arm, spec["sizes"], spec["steps"])
    time.sleep(0.5)
    before, began = time.process_time(), time.monotonic()
    time.sleep(spec["seconds"])
    share = (time.process_time() - before) / (time.monotonic() - began)
    arm.step()
    return {"idle_share": share}


def run_recorder(arm: Arm, spec: dict[str, Any]) -> dict[str, Any]:
    """Blocks of steps without and with a recorder in turn, in one engine: two engines differ by more than it costs."""
    assert isinstance(arm, Ours)
    folder = Path(spec["folder"]) / "record"
    arm.stop()
    folder.mkdir(exist_ok=True)
    arm.start({**arm.settings, "record": str(folder)})
    timed_steps(arm, spec["sizes"], spec["steps"])
    rounds = []
    for number in range(spec["rounds"]):
        for recorded in (False, True) if number % 2 == 0 else (True, False):
            arm.record(recorded)
            rounds.append({"recorded": recorded, **timed_steps(arm, spec["sizes"], spec["steps"])})
    arm.record(True)
    arm.stop()
    return {"rounds": rounds, "recorded_files": len([path for path in folder.glob("**/*") if path.is_file()])}


KINDS = {"steps": run_steps, "idle": run_idle, "recorder": run_recorder}


def main(path: Path) -> None:
    spec = json.loads(path.read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    arm = ARMS[spec["library"]](spec["settings"])
    found = {"rank": arm.rank, "ranks": arm.ranks, **KINDS[spec["kind"]](arm, spec)}
    target = Path(spec["folder"]) / f"rank{arm.rank}.json"
    beside = target.with_suffix(".new")
    beside.write_text(json.dumps(found), encoding="utf-8")
    beside.replace(target)
    arm.stop()
    sys.stdout.flush()
    os._exit(0)  # a library's own exit handlers are none of our business


if __name__ == "__main__":
    main(Path(sys.argv[1]))
