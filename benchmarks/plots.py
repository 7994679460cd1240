"""How every plot looks, and how it is written: SVG that carries the fingerprint of the results it was drawn
from.
"""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

# Paul Tol's "vibrant" scheme, purple, indigo and greys: apart for colour-blind readers, dark enough for white text.
BLUE, ORANGE, TEAL, PURPLE, RED, INDIGO = "#0077BB", "#EE7733", "#009988", "#AA3377", "#CC3311", "#332288"
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


def sheet(title: str, subtitle: str, width: float = 8.6, height: float = 5.0) -> Figure:
    """An empty figure with a title that says what is seen and a subtitle that says what it is a figure of."""
    figure = Figure(figsize=(width, height), layout="constrained")
    lines = subtitle.count("\n") + 1
    figure.text(0.012, 1 - 0.08 / height, title, va="top", fontsize=13, fontweight="bold")
    figure.text(0.012, 1 - 0.38 / height, subtitle, va="top", fontsize=9, color="#555555", linespacing=1.35)
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(rect=(0, 0, 1, 1 - (0.5 + 0.18 * lines) / height))
    return figure


def legend_below(figure: Figure, axes: Axes) -> None:
    """The names under everything."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=len(labels) if len(labels) <= 6 else (len(labels) + 1) // 2,
        frameon=False,
        fontsize=9,
        columnspacing=1.4,
    )


def write(figure: Figure, path: Path, fingerprint: str) -> None:
    """The figure as SVG, the same bytes for the same results and library versions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None, "Description": f"results {fingerprint}"})
