"""Figures with matplotlib, imported only here and only when drawn; the same numbers give the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from coordsim.protocol.planes import CACHED, IDEAL, PLANES
from coordsim.record.files import whole_file

INK, FAINT = "#222222", "#d9d9d9"
_PALETTE = ("#555555", "#0072B2", "#D55E00", "#E69F00", "#CC79A7", "#009E73", "#F0E442", "#000000")
COLOURS = {**dict(zip(PLANES, _PALETTE, strict=False)), f"{CACHED.name} + layers": "#56B4E9"}
"""Okabe and Ito's palette: told apart by colour-blind readers."""
_DASHES = {IDEAL.name: (0, (4, 2)), f"{CACHED.name} + layers": (0, (1, 1))}
"""What lies on top of another curve lets it through."""
_METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}
_STYLE = {
    "font.family": "DejaVu Sans", "font.size": 9, "svg.hashsalt": "coordsim", "svg.fonttype": "path",
    "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
}  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """Efficiency (0..1) against ranks."""

    label: str
    ranks: tuple[int, ...]
    efficiency: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    title: str
    curves: tuple[Curve, ...]


@contextmanager
def drawing() -> Iterator[None]:
    """matplotlib with our style and nobody's matplotlibrc."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def efficiency_figure(title: str, panels: Sequence[Panel]) -> Any:
    """Panels side by side: efficiency against GPUs, every curve labelled where it ends."""
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(11.6, 4.8), dpi=150)
        axes = figure.subplots(1, len(panels), sharey=True)
        for panel, place in zip(panels, axes, strict=True):
            _panel(place, panel)
        axes[0].annotate(
            "scaling efficiency", xy=(0, 1), xycoords="axes fraction", xytext=(-38, 8),
            textcoords="offset points", fontsize=8.5,
        )  # fmt: skip
        figure.suptitle(title, x=0.012, y=0.965, ha="left", fontsize=11.5, fontweight="bold")
        figure.subplots_adjust(left=0.06, right=0.84, bottom=0.11, top=0.81, wspace=0.56)
    return figure


def _panel(axes: Any, panel: Panel) -> None:
    ticks = panel.curves[0].ranks
    for curve in panel.curves:
        dashes = _DASHES.get(curve.label, "-")
        axes.plot(
            curve.ranks, [100 * each for each in curve.efficiency], color=COLOURS[curve.label],
            linewidth=1.8, linestyle=dashes, marker="o", markersize=3.6, clip_on=False, zorder=3,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(ticks[0] * 0.8, ticks[-1] * 1.15)
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_ylim(0, 102)
    axes.yaxis.set_major_formatter("{x:.0f} %")
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("GPUs")
    axes.set_title(panel.title, loc="left", fontsize=10, pad=26)
    _labels(axes, panel)


def _labels(axes: Any, panel: Panel) -> None:
    """Name and last value to the right of each curve, pushed apart where they would overlap."""
    ends = sorted(((100 * curve.efficiency[-1], curve) for curve in panel.curves), key=lambda end: -end[0])
    heights = spread([end for end, _ in ends], least=5.2, low=0.0, high=102.0)
    for (end, curve), height in zip(ends, heights, strict=True):
        axes.annotate(
            f"{curve.label}  {end:.1f} %", xy=(curve.ranks[-1], end), xycoords="data",
            xytext=(1.09, height / 102), textcoords="axes fraction", va="center", fontsize=8.5,
            color=COLOURS[curve.label], annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": COLOURS[curve.label], "linewidth": 0.6, "shrinkB": 3, "shrinkA": 1,
                        "relpos": (0, 0.5)},
        )  # fmt: skip


def spread(wanted: Sequence[float], least: float, low: float, high: float) -> list[float]:
    """Positions near ``wanted`` (descending), at least ``least`` apart, within [low, high] where they fit."""
    placed: list[list[float]] = []  # blocks of neighbours that touch
    for value in wanted:
        placed.append([value])
        while len(placed) > 1 and _top(placed[-1], least) > _bottom(placed[-2], least) - least:
            below = placed.pop()
            placed[-1] += below
    positions = [_top(block, least) - least * index for block in placed for index in range(len(block))]
    for index in range(len(positions)):  # not above the page, then not below it
        ceiling = high if index == 0 else positions[index - 1] - least
        positions[index] = min(positions[index], ceiling)
    for index in reversed(range(len(positions))):
        floor = low if index == len(positions) - 1 else positions[index + 1] + least
        positions[index] = max(positions[index], floor)
    return positions


def _top(block: Sequence[float], least: float) -> float:
    return sum(block) / len(block) + least * (len(block) - 1) / 2


def _bottom(block: Sequence[float], least: float) -> float:
    return sum(block) / len(block) - least * (len(block) - 1) / 2


def save(figure: Any, paths: Sequence[Path]) -> None:
    """Write ``figure`` in the formats that the names of ``paths`` say; each file whole or not at all."""
    for path in paths:
        kind = path.suffix.removeprefix(".")
        drawn = BytesIO()
        with drawing():
            figure.savefig(drawn, format=kind, metadata=_METADATA[kind])
        write_whole(path, drawn.getvalue())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, all of it or nothing."""
    with whole_file(path) as fresh:
        fresh.write_bytes(content)
