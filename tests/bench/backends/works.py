"""What is measured, on which arms, and what counts as reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from coordsim.scenario.catalog import gradient_sizes


@dataclass(frozen=True)
class Target:
    """Ours is to take at most ``ratio`` times what the best of ``against`` takes."""

    against: tuple[str, ...]
    ratio: float
    aim: bool = False
    """Not demanded, but aimed at."""

    def text(self) -> str:
        return f"{'aim ' if self.aim else ''}<= {self.ratio:g}"


@dataclass(frozen=True, kw_only=True)
class Work:
    """One thing that every arm does in the same way."""

    name: str
    """For ``--only``."""
    title: str
    kind: str = "steps"
    """``steps``, ``idle`` or ``recorder``: key of the worker's ``KINDS``."""
    sizes: tuple[int, ...]
    """Elements of float32 of each tensor."""
    ranks: tuple[int, ...]
    arms: tuple[str, ...]
    steps: int
    """Including those that are skipped."""
    slow_arms_steps: int = 0
    """Steps of ``gloo`` and ``gloo-async``, where a step takes seconds; 0: as the others."""
    targets: tuple[Target, ...] = ()
    below: float = 0.0
    """``idle``: share of a core; ``recorder``: what the step may take more."""
    more: dict[str, Any] = field(default_factory=dict)
    """Other keys of the worker's spec."""

    def spec(self, arm: str, quick: bool) -> dict[str, Any]:
        """What the worker is told."""
        steps = self.slow_arms_steps if self.slow_arms_steps and arm.startswith("gloo") else self.steps
        more = {key: max(1, value // 5) if quick else value for key, value in self.more.items()}
        return {"kind": self.kind, "sizes": list(self.sizes), "steps": min(steps, 8) if quick else steps, **more}


OURS = ("ours", "ours-1ms")
HOROVOD = ("horovod-gloo", "horovod-mpi")
_RESNET50 = gradient_sizes("resnet50")

WORKS = {
    work.name: work
    for work in (
        Work(
            name="small", title="161 x 256 B", sizes=(64,) * 161, ranks=(2, 4, 8), arms=(*OURS, *HOROVOD), steps=150,
            targets=(Target(("horovod-gloo",), 1.0), Target(("horovod-mpi",), 1.0, aim=True)),
        ),
        Work(
            name="one", title="one of 1 KB", sizes=(256,), ranks=(2, 4, 8), arms=(*OURS, "gloo", *HOROVOD), steps=300,
            targets=(Target(("horovod-gloo",), 1.0), Target(("horovod-mpi",), 1.0)),
        ),
        Work(
            name="thousand", title="1,000 x 256 B", sizes=(64,) * 1000, ranks=(4,),
            arms=(*OURS, "gloo", "gloo-async", *HOROVOD), steps=50, slow_arms_steps=8,
            targets=(Target(("gloo",), 0.2),),
        ),
        Work(
            name="resnet50", title="ResNet-50", sizes=_RESNET50, ranks=(2, 4), arms=(*OURS, "ddp", *HOROVOD), steps=25,
            targets=(Target(("ddp", *HOROVOD), 1.05),),
        ),
        Work(
            name="idle", title="idle", kind="idle", sizes=(64,) * 161, ranks=(4,), arms=(*OURS, *HOROVOD), steps=5,
            below=0.01, more={"seconds": 10},
        ),
        Work(
            name="recorder-small", title="recorder, 161 x 256 B", kind="recorder", sizes=(64,) * 161, ranks=(2,),
            arms=("ours",), steps=40, below=0.02, more={"rounds": 40},
        ),
        Work(
            name="recorder-resnet50", title="recorder, ResNet-50", kind="recorder", sizes=_RESNET50, ranks=(2,),
            arms=("ours",), steps=13, below=0.02, more={"rounds": 20},
        ),
    )
}  # fmt: skip
