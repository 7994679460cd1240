"""The break-even results in words and tables, from a results file's content and nothing else."""

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from benchmarks.break_even import figures
from benchmarks.break_even.choices import CHOICES
from benchmarks.tables import count, dollars, percent, seconds, table

FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {
    "cost": figures.cost,
    "latency": figures.latency,
    "choices": figures.choices,
    "cold-starts": figures.cold_starts,
}


ALWAYS_ON = {"container": "Always-on containers", "managed": "Managed Instances"}


def _shown(per_day: list[float]) -> list[int]:
    """The rates for the table: those nearest to powers of ten."""
    wanted = [10.0**e for e in range(-2, 9) if per_day[0] * 0.99 <= 10.0**e <= per_day[-1] * 1.01]
    return [min(range(len(per_day)), key=lambda i: abs(per_day[i] - rate)) for rate in wanted]


def _by_rate(content: dict[str, Any]) -> str:
    results = content["results"]
    head = [
        "requests a day",
        *(CHOICES[name].name for name in results),
        "cold on demand",
        "compute saved by loading once",
    ]
    rows = []
    for i in _shown(content["per_day"]):
        cells = [f"{dollars(rows_[i]['usd_month'])}, {seconds(rows_[i]['p99_s'])}" for rows_ in results.values()]
        shares = [percent(results["on_demand"][i]["cold"]), percent(content["compute_saved"][i])]
        rows.append([count(content["per_day"][i]), *cells, *shares])
    return table(head, rows)


def _changes(content: dict[str, Any]) -> str:
    lines = []
    for objective, found in content["changes"].items():
        parts = []
        for i, change in enumerate(found):
            name = CHOICES[change["after"]].name if change["after"] else "none is fast enough"
            until = f" up to {count(found[i + 1]['per_day'])}" if i + 1 < len(found) else " beyond"
            parts.append(f"{name}{until}")
        lines.append(f"- Cheapest, {objective}: {', '.join(parts)} requests a day.")
    for name, where in content["cheaper_from"].items():
        words = ALWAYS_ON[name]
        if where is not None:
            lines.append(f"- {words} cost less than on demand above {count(where)} requests a day.")
        else:
            lines.append(f"- {words} do not become cheaper than on demand at any rate simulated.")
    for name, prices in content["left_out"].items():
        lines.append(
            f"- Left out: {CHOICES[name].name}, no price known for {', '.join(prices)} (give `--price NAME=DOLLARS`)."
        )
    return "\n".join(lines) + "\n"


def _prices(content: dict[str, Any]) -> str:
    rows = [[f"`{name}`", f"{price['usd']:.10g}", price["source"]] for name, price in content["prices"].items()]
    lines = [
        "| price | dollars | source |",
        "| --- | ---: | --- |",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def sections(content: dict[str, Any]) -> dict[str, str]:
    """Named pieces of Markdown, for the results folder and for the documents that quote them."""
    s = content["settings"]
    about = (
        "Dollars a month and 99th percentile of the request, simulated: "
        f"{s['memory_mb']:,} MB {s['architecture']} in {s['region']}, "
        f"cold start {seconds(s['cold_s'])} (loading {seconds(s['load_s'])} of it), "
        f"SnapStart restore {seconds(s['restore_s'])}, "
        f"warm request {seconds(s['warm_s'])} on average (variation {s['warm_cv']:g}), "
        f"idle timeout {s['idle_timeout']}, a ping every {s['ping_every_s']:g} s.\n"
    )
    return {
        "rates": about + "\n" + _by_rate(content),
        "changes": _changes(content),
        "prices": _prices(content),
    }
