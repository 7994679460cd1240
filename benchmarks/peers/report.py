"""The peers side by side in a table and a plot, from a results file's content and nothing else."""

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from benchmarks.plots import BLUE, GREY, INK, TEAL, sheet
from benchmarks.results import provenance
from benchmarks.stats import noise_note, paired_ratio, summarise
from benchmarks.tables import seconds, table

Value = Callable[[dict[str, Any]], float]


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


def _by_round(content: dict[str, Any], label: str, length: int, value: Value) -> dict[int, float]:
    return {sample["round"]: value(sample) for sample in _samples(content, label, length)}


def _figures(content: dict[str, Any]) -> str:
    head = [
        "engine",
        "threads, flags",
        "process to first token",
        "peak memory",
        "first tokens / text as in the first row",
    ]
    rows = []
    for label in _labels(content):
        used = content.get("settings_used", {}).get(label, {"threads": "-", "flags": []})
        start, peak = _starts(content, label), content["peak_memory_bytes"].get(label)
        agreed = content["agreement"].get(label, {"first_token": float("nan"), "text": float("nan")})
        cells = [" ".join([str(used["threads"]), *used["flags"]]), seconds(summarise(start).median) if start else "-"]
        cells += [f"{peak / 1e6:,.0f} MB" if peak else "-", f"{agreed['first_token']:.0%} / {agreed['text']:.0%}"]
        rows.append([label, *cells])
    return table(head, rows)


def _warm(content: dict[str, Any]) -> str:
    lengths = _lengths(content)
    head = ["engine", *(f"first token, {n:,} in" for n in lengths), *(f"each later, {n:,} in" for n in lengths)]
    rows = []
    for label in _labels(content):
        sets = [_samples(content, label, length) for length in lengths]
        if all(sets):
            firsts = [seconds(summarise([first_token(s) for s in samples]).median) for samples in sets]
            later = [f"{summarise([per_token(s) for s in samples]).median * 1000:.2f} ms" for samples in sets]
            rows.append([label, *firsts, *later])
    return table(head, rows)


def _short(content: dict[str, Any]) -> str:
    """The table for a reader in a hurry: one prompt length, the ends of the contexts."""
    lengths = _lengths(content)
    if not lengths:
        return ""
    ends = sorted({lengths[0], lengths[-1]})
    prompt = min(lengths, key=lambda n: abs(n - 512))
    head = ["engine", "process to first token", f"first token, {prompt:,} in"]
    head += [*(f"each later, {n:,} in" for n in ends), "peak memory"]
    rows = []
    for label in _labels(content):
        start, peak = _starts(content, label), content["peak_memory_bytes"].get(label)
        if not (start and peak and all(_samples(content, label, n) for n in lengths)):
            continue
        cells = [seconds(summarise(start).median)]
        cells.append(seconds(summarise([first_token(s) for s in _samples(content, label, prompt)]).median))
        cells += [
            f"{summarise([per_token(s) for s in _samples(content, label, n)]).median * 1000:.1f} ms" for n in ends
        ]
        rows.append([label, *cells, f"{peak / 1e6:,.0f} MB"])
    return table(head, rows)


def _rivals(content: dict[str, Any], ours: str) -> list[str]:
    """Who one of ours is compared with: transformers, and the peers of its precision."""
    precisions = {each["contender"]: each["precision"] for each in content["tuning"]}
    return [
        label
        for label in _labels(content)
        if label not in content["ours"]
        and (label.startswith("transformers") or precisions[label] == precisions.get(ours))
    ]


def _ratio(ours: dict[int, float], theirs: dict[int, float]) -> str:
    shared = [key for key in ours if key in theirs]
    if not shared:
        return "-"
    return f"{paired_ratio([ours[key] for key in shared], [theirs[key] for key in shared])[0]:.2f}"


def ratios(content: dict[str, Any]) -> str:
    """How many times as long as ours the others take: medians of ratios within a round."""
    lengths = _lengths(content)
    head = ["", "process to first token"]
    head += [*(f"first token, {n:,} in" for n in lengths), *(f"each later, {n:,} in" for n in lengths)]
    rows = []
    starts = {label: {s["round"]: s["to_first_token_s"] for s in content["starts"] if s["contender"] == label}
              for label in _labels(content)}  # fmt: skip
    for ours in (label for label in _labels(content) if label in content["ours"]):
        for rival in _rivals(content, ours):
            cells = [_ratio(starts[ours], starts[rival])]
            for value in (first_token, per_token):
                cells += [_ratio(*(_by_round(content, label, n, value) for label in (ours, rival))) for n in lengths]
            rows.append([f"{rival} / {ours}", *cells])
    return table(head, rows)


def _tuning(content: dict[str, Any]) -> str:
    rows = [
        [each["contender"], str(each["threads"]), " ".join(each["flags"]) or "-",
         seconds(each["first_s"]), f"{each['per_token_s'] * 1000:.2f} ms"]
        for each in content["tuning"]
    ]  # fmt: skip
    return table(["engine", "threads", "flags", "first token, 128 in", "each later token"], rows)


def sections(content: dict[str, Any]) -> dict[str, str]:
    """Named pieces of Markdown."""
    spreads = {}
    for label in _labels(content):
        for length in _lengths(content):
            if samples := _samples(content, label, length):
                spreads[f"{label}, tokens after {length:,}"] = summarise([per_token(s) for s in samples]).spread
        if _starts(content, label):
            spreads[f"{label}, starts"] = summarise(_starts(content, label)).spread
    left = [f"- Failed: {name}: {error}." for name, error in content["failed"].items()]
    left += [f"- Skipped: {reason}." for reason in content["skipped"]]
    return {
        "short": _short(content),
        "figures": _figures(content),
        "warm": f"{_warm(content)}\n{noise_note(spreads, content['machine'])}",
        "ratios": ratios(content),
        "tuning": _tuning(content),
        "notes": "\n".join(left) + "\n" if left else "",
    }


def _colour(content: dict[str, Any], label: str) -> str:
    """Ours apart from transformers, and both from the other peers."""
    if label in content["ours"]:
        return BLUE
    return GREY if label.startswith("transformers") else TEAL


def side_by_side(content: dict[str, Any]) -> Figure:
    """Process to first token, and time per token, one bar a contender, every sample a dot."""
    labels = [label for label in _labels(content) if _samples(content, label, _lengths(content)[0])]
    figure = sheet(
        "The same weights in other engines",
        f"{content['settings']['checkpoint']}, greedy, each with its fastest threads and flags; bars are medians, dots "
        f"single runs; ours blue, transformers grey\n{provenance(content)}",
        height=1.9 + 0.36 * len(labels),
    )
    values = [("start to first token, s", {label: _starts(content, label) for label in labels})]
    for length in sorted({min(_lengths(content)), max(_lengths(content))}):
        later = {label: [1000 * per_token(s) for s in _samples(content, label, length)] for label in labels}
        values.append((f"later token, {length:,} in, ms", later))
    panels = figure.subplots(1, len(values), sharey=True)
    for axes, (title, sets) in zip(panels, values, strict=True):
        axes.set_title(title, loc="left", fontsize=10.5)
        for row, label in enumerate(labels):
            if not sets[label]:
                continue
            summary = summarise(sets[label])
            axes.barh(row, summary.median, height=0.66, color=_colour(content, label), lw=0)
            axes.plot(sets[label], [row] * len(sets[label]), ".", color=INK, ms=3, alpha=0.25, mew=0)
            axes.text(summary.median, row, f"  {summary.median:.3g}", va="center", fontsize=9)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, 1.3 * max((summarise(sets[label]).median for label in labels if sets[label]), default=1))
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].invert_yaxis()
    return figure


FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {"side-by-side": side_by_side}
