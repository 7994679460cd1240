"""The server under load in tables and a plot, from a results file's content and nothing else."""

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from benchmarks.plots import BLUE, ORANGE, PURPLE, TEAL, legend_below, sheet
from benchmarks.results import provenance
from benchmarks.stats import summarise
from benchmarks.tables import percent, seconds, table

COLOURS = (BLUE, ORANGE, TEAL, PURPLE)
Kind = tuple[str, int, float]


def _kinds(content: dict[str, Any]) -> dict[Kind, list[dict[str, Any]]]:
    kinds: dict[Kind, list[dict[str, Any]]] = {}
    for sample in content["samples"]:
        kinds.setdefault((sample["variant"], sample["workers"], sample["rate"]), []).append(sample)
    return kinds


def _answered(samples: list[dict[str, Any]]) -> list[float]:
    return [sample["latency_s"] for sample in samples if sample["status"] == 200]


def _latencies(content: dict[str, Any]) -> str:
    head = ["load", "requests", "answered per second", "median", "p95", "p99", "429", "other errors"]
    rows = []
    for (name, workers, rate), samples in _kinds(content).items():
        good = _answered(samples)
        summary = summarise(good)
        busy = sum(sample["status"] == 429 for sample in samples)
        other = len(samples) - len(good) - busy
        throughput = len(good) / max(sample["span_s"] + 1e-9 for sample in samples)
        cells = [
            str(len(samples)),
            f"{throughput:.2f}",
            *(seconds(v) for v in (summary.median, summary.p95, summary.p99)),
        ]
        cells += [percent(busy / len(samples)), percent(other / len(samples))]
        rows.append([f"{name}, {workers} workers, {rate:g} a second", *cells])
    return table(head, rows)


def _memory(content: dict[str, Any]) -> str:
    rows: list[list[str]] = []
    before: dict[str, tuple[int, int]] = {}
    for each in content["memory"]:
        size = each["proportional_bytes"]
        count, smaller = before.get(each["variant"], (0, 0))
        added = f"{(size - smaller) / (each['workers'] - count) / 1e6:,.0f} MB" if count else "-"
        rows.append([f"{each['variant']}, {each['workers']} workers", f"{size / 1e6:,.0f} MB", added])
        before[each["variant"]] = (each["workers"], size)
    return table(["server", "memory, shared pages once", "each worker more adds"], rows)


def sections(content: dict[str, Any]) -> dict[str, str]:
    """Named pieces of Markdown."""
    failed = [f"- Failed: {name}: {error}." for name, error in content["failed"].items()]
    late = summarise([sample["sent_late_s"] for sample in content["samples"]]).p99
    notes = [f"- The client sent 99 % of its requests within {seconds(late)} of their time.", *failed]
    return {"latency": _latencies(content), "memory": _memory(content), "notes": "\n".join(notes) + "\n"}


def latency(content: dict[str, Any]) -> Figure:
    """Median and 95th percentile against the arrival rate, one line a number of workers, for the first variant."""
    name = next(iter(content["settings"]["models"]))
    figure = sheet(
        "The server under load",
        f"{name}, {content['settings']['tokens']} tokens a request, Poisson arrivals that do not wait: median (line) "
        f"and 95th percentile (dots)\n{provenance(content)}",
    )
    axes = figure.add_subplot()
    kinds = _kinds(content)
    counts = sorted({workers for variant, workers, _ in kinds if variant == name})
    for colour, workers in zip(COLOURS, counts, strict=False):
        points = [(r, _answered(s)) for (v, w, r), s in kinds.items() if v == name and w == workers and _answered(s)]
        rates = [rate for rate, _ in points]
        label = f"{workers} worker{'s' if workers > 1 else ''}"
        axes.plot(rates, [summarise(good).median for _, good in points], "-", color=colour, label=label)
        axes.plot(rates, [summarise(good).p95 for _, good in points], "o", color=colour, ms=5)
    axes.set_xlabel("requests a second")
    axes.set_ylabel("seconds to the whole answer")
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    legend_below(figure, axes)
    return figure


FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {"latency": latency}
