"""A training run as a figure: the error on held-out samples against steps and, for STEMDL, the reconstruction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from torch import Tensor

from coordsim.record.files import whole_file
from real_backend.training.diffraction import wavelength
from real_backend.training.stemdl import UNIT_V, Stemdl
from real_backend.training.task import Batch

INK, FAINT, MODEL, TRIVIAL = "#222222", "#d9d9d9", "#0072B2", "#D55E00"
DARKEST = 10_000
"""The picture of the pattern shows intensities down to this fraction of the brightest one."""
_STYLE = {
    "font.family": "DejaVu Sans", "font.size": 9, "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.linewidth": 0.8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Curve:
    """Errors on held-out samples after numbers of steps."""

    title: str
    error_name: str
    points: Sequence[tuple[int, float]]
    """Pairs of (steps done, error)."""
    trivial_name: str
    trivial: float
    """The best answer that uses no input, and its error."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """One held-out sample of STEMDL."""

    pattern: Tensor
    """Share of the electrons, mean over the scan, shape [detector y, x]."""
    half_angle_mrad: float
    """Angle from the middle of the detector to its edge."""
    potentials: Sequence[tuple[str, Tensor]]
    """Pairs of (title, [scan y, x] in V Angstrom); the first is the true one."""
    extent: tuple[float, float]
    """Extent of the scan y, x in Angstrom."""


def pictures(task: Stemdl, batch: Batch, start: Tensor, end: Tensor, number: int = 0) -> Pictures:
    """Return sample ``number`` of ``batch``; ``start`` and ``end`` are the network's outputs for the batch."""
    scope = task.microscope
    edge = scope.window // scope.bins
    shares = batch.inputs[number].cpu().square() / scope.channels  # the inputs are roots
    half_angle = 1e3 * wavelength(scope.kilovolts) / (2 * scope.pixel)
    shown = (("true", batch.targets), ("reconstructed, before training", start), ("after", end))
    potentials = [(title, UNIT_V * each[number, 0].float().cpu()) for title, each in shown]
    height, width = (steps * scope.stride * scope.pixel for steps in scope.scan)
    return Pictures(shares.mean(dim=(1, 2)).view(edge, edge), half_angle, potentials, (height, width))


def draw(path: Path, curve: Curve, shown: Pictures | None = None) -> None:
    """Write a PNG, completely or not at all. Raises OSError as opening it for writing does."""
    from matplotlib.figure import Figure

    drawn = BytesIO()
    with _style():
        figure = Figure(figsize=(6.2, 4.2) if shown is None else (11.6, 6.6), dpi=150, layout="constrained")
        figure.suptitle(curve.title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
        if shown is None:
            _curve(figure.subplots(), curve)
        else:
            parts: Any = figure.subfigures(2, 1, height_ratios=(1.25, 1))
            _curve(parts[0].subplots(), curve)
            _show(parts[1], shown)
        figure.savefig(drawn, format="png", metadata={"Software": None})
    with whole_file(path) as fresh:
        fresh.write_bytes(drawn.getvalue())


@contextmanager
def _style() -> Iterator[None]:
    """Apply this project's matplotlib style, independent of the user's matplotlibrc."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def _curve(axes: Any, curve: Curve) -> None:
    steps, errors = zip(*curve.points, strict=True)
    axes.plot(steps, errors, color=MODEL, linewidth=1.8, marker="o", markersize=3.6, clip_on=False, zorder=3)
    axes.axhline(curve.trivial, color=TRIVIAL, linewidth=1.4, linestyle=(0, (4, 2)))
    for height, text, colour, above in (
        (curve.trivial, f"{curve.trivial_name}  {curve.trivial:.3g}", TRIVIAL, 5),
        (errors[-1], f"held-out samples  {errors[-1]:.3g}", MODEL, -9),
    ):
        axes.annotate(
            text, xy=(1, height), xycoords=("axes fraction", "data"), xytext=(-2, above), textcoords="offset points",
            ha="right", va="bottom" if above > 0 else "top", color=colour,
        )  # fmt: skip
    axes.set_xlim(0, max(steps))
    axes.set_ylim(0, 1.08 * max(*errors, curve.trivial))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("steps")
    axes.set_title(curve.error_name, loc="left", fontsize=9)


def _show(figure: Any, shown: Pictures) -> None:
    """Draw the pattern, then the potentials in one colour scale."""
    from matplotlib.colors import LogNorm

    axes = figure.subplots(1, 1 + len(shown.potentials))
    edge = shown.half_angle_mrad
    brightest = float(shown.pattern.max())
    axes[0].imshow(
        shown.pattern.clamp(min=brightest / DARKEST).numpy(), cmap="gray", extent=(-edge, edge, -edge, edge),
        norm=LogNorm(brightest / DARKEST, brightest),
    )  # fmt: skip
    axes[0].set_title("diffraction, mean of the scan, log", fontsize=9)
    axes[0].set_xlabel("mrad")
    true = shown.potentials[0][1]
    height, width = shown.extent
    for place, (title, potential) in zip(axes[1:], shown.potentials, strict=True):
        image = place.imshow(
            potential.numpy(), cmap="inferno", vmin=0, vmax=float(true.max()), extent=(0, width, height, 0),
            interpolation="nearest",
        )  # fmt: skip
        place.set_title(title, fontsize=9)
        place.set_xlabel("Å")
    figure.colorbar(image, ax=axes[1:], label="projected potential, V Å", shrink=0.9)
