"""Train a small real network, alone or with other ranks.

    python -m real_backend.train stemdl --figure stemdl.png
    torchrun --nproc-per-node 2 -m real_backend.train resnet50 --backend coord --json

Every rank makes its own samples on the fly; nothing is read or downloaded. Rank 0 prints: the result on stdout
(a table, or one line with ``--json``), progress on stderr. Exit codes: 0 ok, 2 bad input, 3 no such device, or ranks
that do not find or that lose each other.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from coordsim.errors import InputError
from real_backend.errors import CannotStart, PeerLost, SettingsDiffer
from real_backend.training import SIZES, TASKS, Stemdl, Step, Training
from real_backend.training.backends import BACKENDS, Groups, Place, reducing

POINTS = 20
"""Number of times that the error is taken, besides at the start."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    place = Place.from_environment()
    if place is None and options.backend != "none":
        parser.error(
            f"--backend {options.backend} needs ranks: "
            f"torchrun --nproc-per-node 2 -m real_backend.train {options.task} --backend {options.backend}"
        )
    if options.groups is not None and options.backend != "optimizer":
        parser.error("--groups goes with --backend optimizer")
    if options.figure is not None and options.figure.suffix != ".png":
        parser.error(f"--figure {options.figure}: the name must end in .png")
    if options.figure is not None and not options.figure.absolute().parent.is_dir():
        parser.error(f"--figure {options.figure}: there is no folder {options.figure.parent}")
    if options.device == "cuda" and not torch.cuda.is_available():
        print("--device cuda: torch finds no GPU here; --device cpu --size small works anywhere", file=sys.stderr)
        return 3
    try:
        result = _train(options, place or Place(0, 1, 0))
    except (InputError, SettingsDiffer) as problem:
        print(problem, file=sys.stderr)
        return 2
    except (CannotStart, PeerLost) as problem:
        print(problem, file=sys.stderr)
        return 3
    if result is not None:
        print(json.dumps(result) if options.json else _table(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m real_backend.train", description=__doc__.partition("\n")[0])
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("--size", choices=(*SIZES, "auto"), default="auto", help="auto: full on a GPU, small on a CPU")
    parser.add_argument("--steps", type=_positive, metavar="N", help="default: the task's")
    parser.add_argument("--batch", type=_positive, metavar="B", help="samples a step and rank; default: the task's")
    parser.add_argument("--seed", type=_natural, default=0, metavar="S")
    parser.add_argument("--backend", choices=BACKENDS, default="none", help="who reduces the gradients")
    parser.add_argument("--groups", type=_groups, metavar="N|layer", help="of tensors, with --backend optimizer")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--figure", type=Path, metavar="FILE.png", help="draw the error, and what stemdl reconstructs")
    parser.add_argument("--json", action="store_true", help="one line on stdout")
    return parser


def _train(options: argparse.Namespace, place: Place) -> dict[str, Any] | None:
    """Return what is to be printed; None on ranks other than 0."""
    cuda = options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda", place.local_rank % torch.cuda.device_count()) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    task = TASKS[options.task](("full" if cuda else "small") if options.size == "auto" else options.size)
    last: int = options.steps or task.steps
    with reducing(options.backend, options.groups, device) as (wrap, wrap_model):
        training = Training(
            task, seed=options.seed, rank=place.rank, batch=options.batch, device=device, last=last,
            wrap=wrap, wrap_model=wrap_model,
        )  # fmt: skip
        before = training.predict(training.held_out().inputs)
        points = [(0, training.held_out_error())]
        steps: list[Step] = []
        for step in training.steps(last):
            steps.append(step)
            done = step.number + 1
            if done % max(1, last // POINTS) == 0 or done == last:
                points.append((done, training.held_out_error()))
                if place.rank == 0:
                    print(f"step {done:4}  loss {step.loss:8.4f}  error {points[-1][1]:.4g}", file=sys.stderr)
        if place.rank != 0:
            return None
    trivial = training.trivial_error()
    if options.figure is not None:
        _draw(options.figure, training, points, trivial, before)
    return {
        "schema": "coordsim.training/1", "task": task.name, "size": task.size, "device": device.type,
        "backend": options.backend, "groups": options.groups, "ranks": place.ranks, "seed": options.seed,
        "batch": training.batch, "steps": last, "tensors": len(list(training.model.parameters())),
        "parameters": sum(parameter.numel() for parameter in training.model.parameters()),
        "error": {"name": task.error_name, "start": points[0][1], "end": points[-1][1],
                  "trivial": trivial, "trivial_name": task.trivial_name},
        "held_out": points, "losses": [step.loss for step in steps],
        "seconds": {"total": sum(step.input_s + step.compute_s for step in steps),
                    "input_median": median(step.input_s for step in steps),
                    "compute_median": median(step.compute_s for step in steps)},
    }  # fmt: skip


def _draw(
    path: Path, training: Training, points: list[tuple[int, float]], trivial: float, before: Tensor
) -> None:
    from real_backend.training.figure import Curve, draw, pictures

    task, shown = training.task, None
    if isinstance(task, Stemdl):
        batch = training.held_out()
        shown = pictures(task, batch, before, training.predict(batch.inputs))
    title = f"{task.title} learns: error on samples that it was not trained on"
    draw(path, Curve(title, task.error_name, points, task.trivial_name, trivial), shown)
    print(f"figure: {path}", file=sys.stderr)


def _table(result: dict[str, Any]) -> str:
    error, seconds = result["error"], result["seconds"]
    rows = [
        ("task", f"{result['task']}, {result['size']}, on {result['device']}"),
        ("gradients", f"{result['tensors']} of {result['parameters']:,} values, reduced by {result['backend']}"),
        ("run", f"{result['steps']} steps of {result['batch']} samples on each of {result['ranks']} ranks"),
        ("error", error["name"]),
        ("  at the start", f"{error['start']:.4g}"),
        ("  at the end", f"{error['end']:.4g}"),
        (f"  {error['trivial_name']}", f"{error['trivial']:.4g}"),
        ("a step, median", f"{seconds['compute_median']:.4f} s, and {seconds['input_median']:.4f} s to make samples"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def _groups(text: str) -> Groups:
    if text == "layer" or (text.isdecimal() and int(text) > 0):
        return text if text == "layer" else int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is neither a positive number nor layer")


if __name__ == "__main__":
    sys.exit(main())
