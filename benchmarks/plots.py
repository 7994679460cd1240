"""How every plot looks, and how it is written: SVG that carries the fingerprint of the results it was drawn from."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Paul Tol's "bright" scheme and two greys: apart for colour-blind readers, on white and in print.
BLUE, RED, GREEN, YELLOW, CYAN, PURPLE = "#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377"
GREY, INK, FAINT = "#999999", "#222222", "#E4E4E4"

mpl.use("svg")
mpl.rcParams.update(
    {
        "svg.hashsalt": "benchmarks",
        "svg.fonttype": "path",
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": "#888888",
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": FAINT,
        "grid.linewidth": 0.7,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.minor.visible": False,
        "ytick.minor.visible": False,
        "lines.linewidth": 2.0,
        "lines.solid_capstyle": "round",
    }
)


def canvas(title: str, subtitle: str, width: float = 8.6, height: float = 5.0) -> tuple[Figure, Axes]:
    """A figure with one set of axes, a title that says what is seen and a subtitle that says what it is a figure of."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    head(axes, title, subtitle)
    return figure, axes


def head(axes: Axes, title: str, subtitle: str) -> None:
    """Title and subtitle above the axes, from the left."""
    lines = subtitle.count("\n") + 1
    axes.set_title(title, loc="left", fontsize=12.5, fontweight="bold", pad=12 + 13 * lines)
    axes.text(
        0, 1, subtitle, transform=axes.transAxes, fontsize=9, color="#555555", va="bottom", linespacing=1.35
    ).set_y(1.02)  # fmt: skip


def spread(positions: list[float], gap: float) -> list[float]:
    """The same positions moved apart so that labels put there are at least `gap` from each other."""
    order = sorted(range(len(positions)), key=positions.__getitem__)
    moved = list(positions)
    for _ in range(200):
        clear = True
        for low, high in zip(order, order[1:], strict=False):
            lack = gap - (moved[high] - moved[low])
            if lack > 1e-9:
                moved[low] -= lack / 2
                moved[high] += lack / 2
                clear = False
        if clear:
            break
    return moved


def write(figure: Figure, path: Path, fingerprint: str) -> None:
    """The figure as SVG, the same bytes for the same results and library versions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None, "Description": f"results {fingerprint}"})
