"""Warm requests in tables and plots, from a results file's content and nothing else."""

from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.plots import BLUE, ORANGE, PURPLE, RED, TEAL, legend_below, sheet
from benchmarks.results import provenance
from benchmarks.stats import Summary, noise_note, summarise
from benchmarks.tables import milliseconds, table

COLOURS = (BLUE, ORANGE, TEAL, PURPLE, RED)
Kind = tuple[str, int, int, int]


def kinds(content: dict[str, Any]) -> dict[Kind, list[dict[str, Any]]]:
    """The samples by variant, prompt length, output length and prompts in a request."""
    found: dict[Kind, list[dict[str, Any]]] = {}
    for s in content["samples"]:
        found.setdefault((s["variant"], s["prompt_tokens"], s["output_tokens"], s["prompts"]), []).append(s)
    return dict(sorted(found.items(), key=lambda item: (item[0][3], item[0][1], item[0][2], item[0][0])))


def per_token(sample: dict[str, Any]) -> float:
    """Seconds for each token after the first of each prompt."""
    return float(sample["decode_s"]) / float(max(sample["completion_tokens"] - sample["prompts"], 1))


def around(sample: dict[str, Any]) -> float:
    """Seconds of the call that the service did not account for: handler, runtime client, emulator."""
    return float(sample["call_s"]) - float(sample["total_s"])


def _three(summary: Summary) -> str:
    """Median, 95th and 99th percentile in milliseconds, each only from as many samples as it takes."""
    shown = ((summary.median, 1), (summary.p95, 20), (summary.p99, 100))
    return " / ".join(milliseconds(value) if summary.n >= needed else "-" for value, needed in shown)


def _requests(content: dict[str, Any]) -> str:
    head = ["request", "calls", "first token", "each later token", "whole request", "around the model"]
    rows = []
    for (name, prompt, output, prompts), samples in kinds(content).items():
        label = f"{name}: {f'{prompts} x ' if prompts > 1 else ''}{prompt} tokens in, {output} out"
        columns = (
            [s["first_token_s"] for s in samples],
            [per_token(s) for s in samples],
            [s["call_s"] for s in samples],
            [around(s) for s in samples],
        )
        rows.append([label, str(len(samples)), *(_three(summarise(column)) for column in columns)])
    return "Milliseconds: median / p95 (from 20 calls) / p99 (from 100 calls).\n\n" + table(head, rows)


def _pings(content: dict[str, Any]) -> str:
    rows = []
    sets: dict[tuple[str, int], list[float]] = {}
    for ping in content["pings"]:
        sets.setdefault((ping["variant"], ping["event_bytes"]), []).append(ping["call_s"])
    for (name, size), samples in sorted(sets.items(), key=lambda item: (item[0][0], item[0][1])):
        rows.append([f"{name}: event of {size:,} bytes", str(len(samples)), _three(summarise(samples))])
    text = "Milliseconds of a call that asks for no tokens (a scheduled ping), median / p95 / p99.\n\n"
    return text + table(["event", "calls", "whole call"], rows)


def sections(content: dict[str, Any]) -> dict[str, str]:
    """Named pieces of Markdown."""
    spreads = {
        f"{name}, {prompts} x {prompt} in, {output} out": summarise([s["call_s"] for s in samples]).spread
        for (name, prompt, output, prompts), samples in kinds(content).items()
    }
    failed = [f"- Failed: {name}: {error}" for name, error in content["failed"].items()]
    return {
        "requests": f"{_requests(content)}\n{noise_note(spreads, content['machine'])}",
        "sizes": _pings(content),
        "notes": "\n".join(failed) + "\n" if failed else "",
    }


def _panel(axes: Axes, content: dict[str, Any], value: Callable[[dict[str, Any]], float]) -> None:
    """A value against the prompt's length, at the most measured output length, one line per variant."""
    found = kinds(content)
    outputs = [output for _, _, output, prompts in found if prompts == 1]
    base = max(set(outputs), key=outputs.count)
    for colour, name in zip(COLOURS, content["settings"]["models"], strict=False):
        points = sorted((p, found[n, p, o, k]) for n, p, o, k in found if n == name and o == base and k == 1)
        if not points:
            continue
        x = [prompt for prompt, _ in points]
        sums = [summarise([value(s) * 1000 for s in samples]) for _, samples in points]
        axes.fill_between(x, [s.lowest for s in sums], [s.p95 for s in sums], color=colour, alpha=0.15, lw=0)
        axes.plot(x, [s.median for s in sums], "o-", color=colour, ms=4, label=name)
    axes.set_xscale("log")
    lengths = sorted({prompt for _, prompt, output, k in found if output == base and k == 1})
    axes.xaxis.set_major_locator(FixedLocator(lengths))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda length, _: f"{length:,.0f}"))
    axes.set_xlabel("tokens of prompt (logarithmic)")
    axes.set_ylim(bottom=0)


def prompts(content: dict[str, Any]) -> Figure:
    """Time to the first token and per later token, against the prompt's length."""
    figure = sheet(
        "A warm request",
        f"Median over the calls; the band reaches from the fastest to the 95th percentile\n{provenance(content)}",
    )
    left, right = figure.subplots(1, 2)
    left.set_title("milliseconds to the first token", loc="left", fontsize=10.5)
    _panel(left, content, lambda s: float(s["first_token_s"]))
    right.set_title("milliseconds for each later token", loc="left", fontsize=10.5)
    _panel(right, content, per_token)
    legend_below(figure, left)
    return figure


FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {"prompts": prompts}
