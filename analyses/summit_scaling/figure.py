"""The figure: efficiency against GPUs, a line a control plane, a band from the costly to the cheap end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Table = list[dict[str, str]]

STYLE = {  # Okabe and Ito's colours; a marker each, so that no one needs the colours
    "ideal": ("#000000", "o"), "ddp": ("#E69F00", "s"), "point-to-point": ("#CC79A7", "v"),
    "coordinator": ("#D55E00", "^"), "hierarchical": ("#009E73", "D"), "cached": ("#0072B2", "P"),
}  # fmt: skip
TITLES = {"stemdl": "STEMDL (1.25 s a step)", "resnet50": "ResNet-50, batch 64 (0.09 s a step)"}
GROUP_TITLES = {"none": "no groups", "layer": "a group a layer", "1": "one group"}
SMALLEST_GAP = 0.062
"""Of labels, in efficiency."""


def draw(table: Table, folder: Path) -> None:
    """``figure.png`` and ``figure.svg``; the same bytes every time."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    mpl.rcParams.update({
        "svg.hashsalt": "summit_scaling", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
        "axes.titlesize": 10, "axes.titlelocation": "left",
    })  # fmt: skip
    workloads = list(dict.fromkeys(row["workload"] for row in table))
    grouped = [groups for groups in GROUP_TITLES if any(row["groups"] == groups for row in table)]
    figure, axes = plt.subplots(
        len(workloads), len(grouped), figsize=(4.3 * len(grouped), 7.2), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for row, workload in enumerate(workloads):
        for column, groups in enumerate(grouped):
            rows = [each for each in table if each["workload"] == workload and each["groups"] == groups]
            _panel(axes[row, column], rows)
            axes[row, column].set_title(f"{TITLES[workload]}, {GROUP_TITLES[groups]}")
            if row == len(workloads) - 1:
                axes[row, column].set_xlabel("GPUs")
            if column == 0:
                axes[row, column].set_ylabel("scaling efficiency")
    figure.suptitle(
        "Predicted scaling on Summit: line = median, band = all uncertain parameters at their costly or cheap end",
        x=0.01, ha="left", fontsize=11,
    )  # fmt: skip
    figure.savefig(folder / "figure.png", dpi=130, metadata={"Software": None})
    figure.savefig(folder / "figure.svg", metadata={"Date": None})
    plt.close(figure)


def _panel(axes: Any, rows: Table) -> None:
    ends: list[tuple[float, str]] = []
    largest = max(int(row["gpus"]) for row in rows)
    for plane, (colour, marker) in STYLE.items():
        line = [row for row in rows if row["control_plane"] == plane]
        gpus = [int(row["gpus"]) for row in line]
        low, median, high = (
            [float(row[key]) for row in line] for key in ("efficiency_low", "efficiency", "efficiency_high")
        )
        if plane in ("point-to-point", "coordinator", "cached"):
            axes.fill_between(gpus, low, high, color=colour, alpha=0.13, linewidth=0)
        axes.plot(gpus, median, color=colour, marker=marker, markersize=3.6, linewidth=1.4)
        ends.append((median[-1], plane))
    axes.axvline(27_600, color="0.75", linewidth=0.8, zorder=0)
    axes.set_xscale("log")
    axes.set_xlim(5, largest * 28)
    axes.set_ylim(0, 1.02)
    ticks = {6: "6", 96: "96", 1536: "1,536", 27_600: "27.6 k", 100_000: "100 k"}
    ticks = {gpus: name for gpus, name in ticks.items() if gpus <= largest}
    axes.set_xticks(list(ticks), list(ticks.values()), fontsize=8)
    axes.minorticks_off()
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    for (end, plane), at in zip(sorted(ends), _spread_out([end for end, _ in sorted(ends)]), strict=True):
        axes.annotate(
            plane, (largest, end), xytext=(largest * 1.5, at), textcoords="data", color=STYLE[plane][0], va="center",
            fontsize=8, arrowprops={
                "arrowstyle": "-", "color": STYLE[plane][0], "linewidth": 0.5, "relpos": (0, 0.5),
                "shrinkA": 0, "shrinkB": 3,
            },
        )  # fmt: skip


def _spread_out(places: list[float]) -> list[float]:
    """Ascending label places, at least ``SMALLEST_GAP`` apart, the uppermost at most at 1."""
    found = list(places)
    for index, place in enumerate(found):
        found[index] = max(place, 0.03 if index == 0 else found[index - 1] + SMALLEST_GAP)
    top = 0.99
    for index in range(len(found) - 1, -1, -1):
        found[index] = min(found[index], top)
        top = found[index] - SMALLEST_GAP
    return found
