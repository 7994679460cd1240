"""The peers side by side in a table and a plot, from a results file's content and nothing else."""

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from benchmarks.plots import BLUE, GREY, INK, sheet
from benchmarks.results import provenance
from benchmarks.stats import noise_note, paired_ratio, summarise
from benchmarks.tables import seconds, table


def _labels(content: dict[str, Any]) -> list[str]:
    """Contenders in the order in which they were tuned."""
    return list(dict.fromkeys(each["contender"] for each in content["tuning"]))


def _starts(content: dict[str, Any], label: str) -> list[float]:
    return [start["to_first_token_s"] for start in content["starts"] if start["contender"] == label]


def _samples(content: dict[str, Any], label: str, length: int) -> list[dict[str, Any]]:
    return [s for s in content["samples"] if s["contender"] == label and s["prompt_tokens"] == length]


def _lengths(content: dict[str, Any]) -> list[int]:
    return sorted({sample["prompt_tokens"] for sample in content["samples"]})


def first_token(sample: dict[str, Any]) -> float:
    """Seconds to the first token of a warm request, loading included where every request loads."""
    return float(sample["load_s"] + sample["first_s"])


def per_token(sample: dict[str, Any]) -> float:
    """Seconds for each token after the first."""
    return float(sample["decode_s"]) / float(max(sample["tokens"] - 1, 1))


def _figures(content: dict[str, Any]) -> str:
    lengths = _lengths(content)
    head = ["engine", "threads", "process to first token", "each later token"]
    head += [f"first token, {length} in" for length in lengths]
    head += ["peak memory", "first tokens / text as in the first row"]
    rows = []
    for label in _labels(content):
        decode = [per_token(s) for s in content["samples"] if s["contender"] == label]
        if not decode:
            continue
        used = content.get("settings_used", {}).get(label, {"threads": "-", "flags": []})
        start = _starts(content, label)
        cells = [" ".join([str(used["threads"]), *used["flags"]]), seconds(summarise(start).median) if start else "-"]
        cells.append(f"{summarise(decode).median * 1000:.1f} ms")
        cells += [seconds(summarise([first_token(s) for s in _samples(content, label, n)]).median) for n in lengths]
        peak = content["peak_memory_bytes"].get(label)
        agreed = content["agreement"].get(label, {"first_token": float("nan"), "text": float("nan")})
        cells += [f"{peak / 1e6:,.0f} MB" if peak else "-", f"{agreed['first_token']:.0%} / {agreed['text']:.0%}"]
        rows.append([label, *cells])
    return table(head, rows)


def _ratios(content: dict[str, Any]) -> list[str]:
    """Tokens of every contender beside those of the first, pairwise within a round."""
    labels, lines = _labels(content), []

    def by_round(label: str) -> dict[tuple[int, int], float]:
        return {(s["round"], s["prompt_tokens"]): per_token(s) for s in content["samples"] if s["contender"] == label}

    base = by_round(labels[0]) if labels else {}
    for label in labels[1:]:
        other = by_round(label)
        shared = [key for key in base if key in other]
        if shared:
            median, low, high = paired_ratio([base[key] for key in shared], [other[key] for key in shared])
            lines.append(
                f"- {label}: a token takes {median:.2f} times as long as with {labels[0]} "
                f"(middle half of {len(shared)} pairs: {low:.2f} to {high:.2f})."
            )
    return lines


def sections(content: dict[str, Any]) -> dict[str, str]:
    """Named pieces of Markdown."""
    spreads = {}
    for label in _labels(content):
        decode = [per_token(s) for s in content["samples"] if s["contender"] == label]
        if decode:
            spreads[f"{label}, tokens"] = summarise(decode).spread
        if _starts(content, label):
            spreads[f"{label}, starts"] = summarise(_starts(content, label)).spread
    notes = _ratios(content)
    notes += [f"- Failed: {name}: {error}." for name, error in content["failed"].items()]
    notes += [f"- Skipped: {reason}." for reason in content["skipped"]]
    return {
        "figures": f"{_figures(content)}\n{noise_note(spreads, content['machine'])}",
        "notes": "\n".join(notes) + "\n" if notes else "",
    }


def side_by_side(content: dict[str, Any]) -> Figure:
    """Process to first token, and time per token, one bar a contender, every sample a dot."""
    labels = [label for label in _labels(content) if _samples(content, label, _lengths(content)[0])]
    figure = sheet(
        "The same weights in other engines",
        f"{content['settings']['checkpoint']}, greedy, each with its fastest threads and flags; bars are medians, dots "
        f"single runs; transformers in grey\n{provenance(content)}",
        height=1.9 + 0.36 * len(labels),
    )
    panels = figure.subplots(1, 2, sharey=True)
    values = (
        ("seconds from process start to first token", {label: _starts(content, label) for label in labels}),
        (
            "milliseconds per later token",
            {label: [per_token(s) * 1000 for s in content["samples"] if s["contender"] == label] for label in labels},
        ),
    )
    for axes, (title, sets) in zip(panels, values, strict=True):
        axes.set_title(title, loc="left", fontsize=10.5)
        for row, label in enumerate(labels):
            if not sets[label]:
                continue
            summary = summarise(sets[label])
            axes.barh(row, summary.median, height=0.66, color=GREY if label.startswith("transformers") else BLUE, lw=0)
            axes.plot(sets[label], [row] * len(sets[label]), ".", color=INK, ms=3, alpha=0.25, mew=0)
            axes.text(max(summary.median, summary.p95), row, f"  {summary.median:.3g}", va="center", fontsize=9)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, max(summarise(sets[label]).p95 for label in labels if sets[label]) * 1.2)
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].invert_yaxis()
    return figure


FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {"side-by-side": side_by_side}
