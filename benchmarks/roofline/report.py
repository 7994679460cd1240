"""The machine's bounds, the floors and the engines beside them, from a results file's content and nothing else."""

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from benchmarks.plots import BLUE, GREY, sheet
from benchmarks.results import provenance
from benchmarks.stats import noise_note, summarise
from benchmarks.tables import table

UNITS = {"read": "GB/s", "matrix": "GFLOP/s"}


def _bounds(content: dict[str, Any]) -> str:
    rows = []
    for bound in content["bounds"]:
        summary = summarise(bound["samples"])
        unit = UNITS[bound["bound"].split()[0]]
        figures = [f"{max(bound['samples']) / 1e9:.3g}", f"{summary.median / 1e9:.3g}", unit, f"{summary.spread:.0%}"]
        rows.append([bound["bound"], str(bound["threads"]), *figures])
    return table(["bound", "threads", "best", "median", "unit", "spread"], rows)


def _floors(content: dict[str, Any]) -> str:
    dtypes = list(next(iter(content["floors"].values()))["floor_s"])
    rows = [
        [name, f"{floor['weights_per_token'] / 1e6:.1f} M", *(f"{floor['floor_s'][d] * 1000:.2f}" for d in dtypes)]
        for name, floor in content["floors"].items()
    ]
    intro = f"Milliseconds per token at {content['best_read'] / 1e9:.1f} GB/s, the best bandwidth seen.\n\n"
    return intro + table(["model", "weights read", *dtypes], rows)


def _engines(content: dict[str, Any]) -> str:
    rows = [
        [
            each["variant"],
            each["dtype"],
            f"{each['per_token_s'] * 1000:.2f} ms",
            f"{each['floor_s'] * 1000:.2f} ms",
            f"{each['floor_s'] / each['per_token_s']:.0%}",
        ]
        for each in content["engines"]
    ]
    head = ["engine", "precision", "a token takes (median)", "floor", "of the bandwidth used"]
    return table(head, rows) if rows else ""


def _prefills(content: dict[str, Any]) -> str:
    rows = [
        [
            f"{each['variant']}, {each['prompt_tokens']:,} tokens",
            each["dtype"],
            f"{each['prefill_s'] * 1000:.0f} ms",
            f"{each['operations_per_s'] / 1e9:.0f} GFLOP/s",
            f"{each['operations_per_s'] / each['best_operations_per_s']:.0%}",
        ]
        for each in content["prefills"]
    ]
    head = ["prompt", "precision", "takes (median)", "in linear layers", "of the best matrix product here"]
    return table(head, rows)


def sections(content: dict[str, Any]) -> dict[str, str]:
    """Named pieces of Markdown."""
    spreads = {
        f"{bound['bound']}, {bound['threads']} threads": summarise(bound["samples"]).spread
        for bound in content["bounds"]
    }
    return {
        "bounds": f"{_bounds(content)}\n{noise_note(spreads, content['machine'])}",
        "floors": _floors(content),
        "engines": _engines(content),
        **({"prefills": _prefills(content)} if content.get("prefills") else {}),
    }


def floors(content: dict[str, Any]) -> Figure:
    """Floors by precision, and the engines' measured tokens beside them."""
    bars = []
    for name, floor in content["floors"].items():
        for dtype, seconds in floor["floor_s"].items():
            bars.append((f"{name} {dtype}: floor", seconds, GREY))
            bars += [
                (f"{engine['variant']}: measured", engine["per_token_s"], BLUE)
                for engine in content["engines"]
                if engine["dtype"] == dtype and engine["floor_s"] == seconds
            ]
    figure = sheet(
        "The floor under decoding",
        f"Milliseconds to read every weight once at {content['best_read'] / 1e9:.1f} GB/s (grey), and what a token "
        f"really takes (blue)\n{provenance(content)}",
        height=1.6 + 0.33 * len(bars),
    )
    axes = figure.add_subplot()
    for row, (_, seconds, colour) in enumerate(bars):
        axes.barh(row, seconds * 1000, height=0.66, color=colour, lw=0)
        axes.text(seconds * 1000, row, f" {seconds * 1000:.3g}", va="center", fontsize=9)
    axes.set_yticks(range(len(bars)), [label for label, _, _ in bars])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("milliseconds per token")
    return figure


FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {"floors": floors}
