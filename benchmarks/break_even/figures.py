"""The break-even plots, drawn from a results file's content and nothing else."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.break_even.choices import CHOICES
from benchmarks.plots import BLUE, GREY, INDIGO, INK, ORANGE, PURPLE, RED, TEAL, legend_below, sheet
from benchmarks.tables import count, seconds

COLOURS = {
    "load_per_request": GREY,
    "on_demand": BLUE,
    "warm_up": ORANGE,
    "snapstart": TEAL,
    "provisioned": PURPLE,
    "container": RED,
    "managed": INDIGO,
}
_UNFIT = "#F3F3F3"
SECONDS = [t * 10.0**e for e in range(-3, 3) for t in (1, 1.5, 2, 3, 5, 7)]
_DAY = "requests per day (mean, logarithmic)"


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _rates(axes: Axes, per_day: list[float]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(per_day[0], per_day[-1])
    decades = 10.0 ** np.arange(np.ceil(np.log10(per_day[0])), np.floor(np.log10(per_day[-1])) + 1)
    axes.xaxis.set_major_locator(FixedLocator(list(decades)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.set_xlabel(_DAY)


def _logarithmic_y(axes: Axes, ticks: list[float], text: Any) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(text))


def _about(content: dict[str, Any]) -> str:
    s = content["settings"]
    bursts = "" if s["burst_factor"] == 1 else f", in bursts at {s['burst_factor']:g} times the mean rate"
    return (
        f"{s['memory_mb']:,} MB {s['architecture']} in {s['region']}; cold start {seconds(s['cold_s'])}, "
        f"{seconds(s['load_s'])} of it loading; a warm request takes {seconds(s['warm_s'])} on average"
        f"{bursts}"
    )


def _lines(axes: Axes, content: dict[str, Any], value: Any) -> None:
    """One line per choice, the first ones wider, so that lines on top of each other stay visible."""
    for i, (name, rows) in enumerate(content["results"].items()):
        y = [value(row, at) for at, row in enumerate(rows)]
        axes.plot(content["per_day"], y, color=COLOURS[name], label=CHOICES[name].name, lw=5.0 - 0.6 * i)


def cost(content: dict[str, Any]) -> Figure:
    """Dollars a month against the request rate, and beside what on demand costs."""
    per_day, results = content["per_day"], content["results"]
    figure = sheet("What a month costs", f"Simulated AWS bill: {_about(content)}", height=6.4)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _lines(above, content, lambda row, _: row["usd_month"])
    on_demand = [row["usd_month"] for row in results["on_demand"]]
    _lines(below, content, lambda row, at: row["usd_month"] / on_demand[at])
    every = [row["usd_month"] for rows in results.values() for row in rows]
    decades = np.arange(np.floor(np.log10(min(every))), np.ceil(np.log10(max(every))) + 1)
    _logarithmic_y(above, list(10.0**decades), lambda usd, _: f"${usd:,.0f}" if usd >= 1 else f"${usd:g}")
    above.set_ylim(min(every) * 0.7, max(every) * 1.6)
    above.set_ylabel("dollars a month")
    _rates(below, per_day)
    below.set_ylim(0.4, 2.1)
    below.yaxis.set_major_locator(FixedLocator([0.5, 1, 1.5, 2]))
    below.yaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    below.set_ylabel("times on demand")
    where = content["cheaper_from"].get("container")
    if where is not None:
        usd = float(np.exp(np.interp(np.log(where), np.log(per_day), np.log(on_demand))))
        above.plot([where], [usd], "o", color=INK, ms=6, zorder=5)
        above.annotate(
            f"above {count(where)} a day\na container is cheaper\nthan on demand",
            (where, usd),
            xytext=(-16, 30),
            textcoords="offset points",
            ha="right",
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": INK, "lw": 0.8},
        )
        below.axvline(where, color=INK, lw=0.8, ls=(0, (4, 3)))
    legend_below(figure, above)
    return figure


def latency(content: dict[str, Any]) -> Figure:
    """Median and 99th percentile of the whole request against the rate."""
    every = [row[key] for rows in content["results"].values() for row in rows for key in ("p50_s", "p99_s")]
    figure = sheet("How long a request takes", f"Simulated: {_about(content)}", height=5.2)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, key, title in zip(panels, ("p50_s", "p99_s"), ("median", "99th percentile"), strict=True):
        axes.set_title(title, loc="left", fontsize=10.5)
        _lines(axes, content, lambda row, _, key=key: row[key])
        _rates(axes, content["per_day"])
        _logarithmic_y(axes, SECONDS, lambda value, _: f"{value:g} s")
        axes.set_ylim(min(every) * 0.85, max(every) * 1.15)
    panels[0].set_ylabel("from request to last token")
    legend_below(figure, panels[0])
    return figure


def _edges(values: list[float]) -> list[float]:
    """The borders of cells whose middles are `values`, on a logarithmic scale."""
    log = np.log(values)
    inner = (log[1:] + log[:-1]) / 2
    return [float(edge) for edge in np.exp(np.concatenate([log[:1], inner, log[-1:]]))]


def _regions(axes: Axes, x: list[float], y: list[float], rows: list[str]) -> None:
    """Coloured areas, `rows [y]` of one letter for each x, each choice's named once; runs in a column are one box."""
    names = {name[0]: name for name in COLOURS}
    best = [[names.get(letter) for letter in row] for row in rows]
    left, low = _edges(x), _edges(y)
    cells: dict[str | None, list[tuple[int, int]]] = {}
    for column in range(len(x)):
        start = 0
        for row in range(1, len(y) + 1):
            if row < len(y) and best[row][column] == best[start][column]:
                continue
            name = best[start][column]
            colour = COLOURS[name] if name else _UNFIT
            corner, size = (
                (left[column], low[start]),
                (left[column + 1] - left[column], low[row] - low[start]),
            )
            axes.add_patch(Rectangle(corner, *size, facecolor=colour, edgecolor=colour, linewidth=0.4))
            cells.setdefault(name, []).extend((at, column) for at in range(start, row))
            start = row
    axes.grid(visible=False)
    for name, places in cells.items():
        if len(places) < 0.015 * len(x) * len(y):
            continue
        at = np.array(places) / (len(y), len(x))
        row, column = places[int(np.argmin(((at - np.median(at, axis=0)) ** 2).sum(axis=1)))]
        axes.text(
            x[column],
            y[row],
            CHOICES[name].name if name else "none is\nfast enough",
            ha="center",
            va="center",
            fontsize=10.5,
            fontweight="bold",
            color="white" if name else "#777777",
        )


def choices(content: dict[str, Any]) -> Figure:
    """The cheapest choice for each request rate and latency wanted."""
    figure = sheet(
        "The cheapest way to be fast enough",
        "The cheapest choice whose simulated 99th percentile is within the limit "
        f"(of those within 1 %, the simplest):\n{_about(content)}",
    )
    axes = figure.add_subplot()
    region = content["by_latency"]
    _regions(axes, content["per_day"], region["p99_s"], region["best"])
    _rates(axes, content["per_day"])
    _logarithmic_y(axes, SECONDS, lambda value, _: f"{value:g} s")
    axes.set_ylim(region["p99_s"][0], region["p99_s"][-1])
    axes.set_ylabel("limit on the 99th percentile")
    return figure


def cold_starts(content: dict[str, Any]) -> Figure:
    """The cheapest choice for each request rate and cold start, at one limit on latency."""
    s, region = content["settings"], content["by_cold_start"]
    figure = sheet(
        "What a fast cold start is worth",
        f"The cheapest choice with a 99th percentile within {seconds(s['p99_s'])}, by closed form; "
        f"Poisson requests of {seconds(s['warm_s'])} on average,\n"
        f"{s['memory_mb']:,} MB {s['architecture']} in {s['region']}, "
        f"SnapStart restore {seconds(s['restore_s'])}, "
        f"loading {s['load_s'] / s['cold_s'] if s['cold_s'] else 1:.0%} of the cold start",
    )
    axes = figure.add_subplot()
    _regions(axes, region["per_day"], region["cold_s"], region["best"])
    _rates(axes, region["per_day"])
    _logarithmic_y(
        axes,
        [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10],
        lambda value, _: f"{value:g} s" if value >= 1 else f"{value * 1000:.0f} ms",
    )
    axes.set_ylim(region["cold_s"][0], region["cold_s"][-1])
    axes.set_ylabel("cold start")
    axes.axhline(s["cold_s"], color="white", lw=1.4, ls=(0, (4, 3)))
    axes.annotate(
        f"this function: {seconds(s['cold_s'])}",
        (region["per_day"][0], s["cold_s"]),
        xytext=(8, 4),
        textcoords="offset points",
        color="white",
        fontsize=9,
    )
    return figure
