"""Cold starts in tables and a plot, from a results file's content and nothing else."""

from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.cold_start.measure import Condition
from benchmarks.cold_start.remains import remains
from benchmarks.plots import BLUE, GREY, INK, ORANGE, PURPLE, RED, TEAL, legend_below, sheet
from benchmarks.results import provenance
from benchmarks.stats import noise_note, paired_ratio, summarise
from benchmarks.tables import seconds, table
from engines.machine import MB_PER_VCPU

PHASES = {
    "start": ("python starts", GREY),
    "app_imports": ("our imports", TEAL),
    "imports": ("engine's imports", ORANGE),
    "weights": ("weights", BLUE),
    "tokenizer": ("tokenizer", "#8C6D31"),
    "warm_up": ("warm-up token", PURPLE),
    "rest": ("rest of the load", "#BBBBBB"),
    "request": ("first request", RED),
}
"""The phases, one after the other."""
Kind = tuple[str, int | None, str]


def _kinds(content: dict[str, Any]) -> dict[Kind, list[dict[str, Any]]]:
    kinds: dict[Kind, list[dict[str, Any]]] = {}
    for sample in content["samples"]:
        kinds.setdefault((sample["variant"], sample["memory_mb"], sample["cache"]), []).append(sample)
    order = list(content["settings"]["models"])
    return dict(sorted(kinds.items(), key=lambda item: (order.index(item[0][0]), item[0][1] or 0, item[0][2])))


def _label(kind: Kind) -> str:
    name, memory_mb, cache = kind
    return Condition(memory_mb, cache).of(name)


def split(sample: dict[str, Any]) -> dict[str, float]:
    """Seconds of each phase of one cold start; they add up to the time to the first answer."""
    phases = sample["phases_s"]
    found = {name: float(phases[name]) for name in PHASES if name in phases}
    total = float(phases["total"])
    found["rest"] = max(total - sum(found.values()), 0.0)
    found["request"] = max(float(sample["to_first_answer_s"]) - total, 0.0)
    return found


def _median_split(samples: list[dict[str, Any]]) -> dict[str, float]:
    splits = [split(sample) for sample in samples]
    return {name: summarise([each[name] for each in splits]).median for name in PHASES}


def _times(content: dict[str, Any]) -> str:
    head = ["cold start", "runs", "median", "p95", "spread", *(label for label, _ in PHASES.values())]
    rows = []
    for kind, samples in _kinds(content).items():
        whole = summarise([sample["to_first_answer_s"] for sample in samples])
        parts = _median_split(samples)
        cells = [str(whole.n), f"**{seconds(whole.median)}**", seconds(whole.p95), f"{whole.spread:.0%}"]
        rows.append([_label(kind), *cells, *(seconds(parts[name]) for name in PHASES)])
    return table(head, rows)


def _costs(content: dict[str, Any]) -> str:
    head = ["cold start", "peak memory", "of it file-backed", "read from disk", "read by calls", "files opened"]
    rows = []
    for kind, samples in _kinds(content).items():
        cells = [
            f"{summarise([sample.get(name, float('nan')) for sample in samples]).median / 1e6:,.0f} MB"
            for name in ("peak_memory_bytes", "file_backed_bytes", "disk_read_bytes", "read_call_bytes")
        ]
        opened = content["files_opened"].get(kind[0])
        rows.append([_label(kind), *cells, f"{opened:,}" if opened else "not traced"])
    return table(head, rows)


def _images(content: dict[str, Any]) -> str:
    """Each image: its size, its cold starts, and what a file system has to fetch that fetches what is first read."""
    rows = []
    for name, size in content.get("image_bytes", {}).items():
        starts, read = {"warm": "", "cold": ""}, ""
        for (variant, _, cache), samples in _kinds(content).items():
            if variant == name:
                starts[cache] = seconds(summarise([sample["to_first_answer_s"] for sample in samples]).median)
                if cache == "cold":
                    bytes_read = [sample.get("disk_read_bytes", float("nan")) for sample in samples]
                    read = f"{summarise(bytes_read).median / 1e6:,.0f} MB"
        opened = content["files_opened"].get(name)
        cells = [f"{size / 1e6:,.0f} MB", starts["warm"], starts["cold"], f"{opened:,}" if opened else "not traced"]
        rows.append([name, *cells, read])
    head = ["image", "size", "cold start, warm page cache", "cold start, empty page cache", "files opened"]
    return table([*head, "read from the disk then"], rows)


def _base(name: str, models: dict[str, dict[str, str]]) -> str:
    """The variant that `name` is compared with: the first one, among images the first of the same tag."""

    def group(each: str) -> str:
        return models[each]["model"].partition(":")[2] if models[each]["engine"] == "container" else ""

    return next(each for each in models if group(each) == group(name))


def _ratios(content: dict[str, Any]) -> list[str]:
    """Every variant beside its base, round by round under the same condition."""
    kinds, lines = _kinds(content), []
    for (name, memory_mb, cache), samples in kinds.items():
        first = _base(name, content["settings"]["models"])
        base = {s["round"]: s["to_first_answer_s"] for s in kinds.get((first, memory_mb, cache), [])}
        pairs = [(base[s["round"]], s["to_first_answer_s"]) for s in samples if s["round"] in base]
        if name == first or not pairs:
            continue
        median, low, high = paired_ratio([b for b, _ in pairs], [o for _, o in pairs])
        lines.append(
            f"- {_label((name, memory_mb, cache))}: {1 / median:.2f} times as fast as {first} "
            f"(middle half of {len(pairs)} pairs: {1 / high:.2f} to {1 / low:.2f})."
        )
    return lines


def _prompts(content: dict[str, Any]) -> str:
    """Cold starts by the request's prompt, where some of one was baked; else empty."""
    kinds = _kinds(content)
    first = {kind[0]: samples[0] for kind, samples in kinds.items()}
    lengths = {name: (sample.get("prompt_tokens"), sample.get("cached_tokens")) for name, sample in first.items()}
    if not any(baked for _, baked in lengths.values()):
        return ""
    starts: dict[str, dict[str, float]] = {name: {} for name in lengths}
    for (name, _, cache), samples in kinds.items():
        starts[name][cache] = summarise([sample["to_first_answer_s"] for sample in samples]).median
    caches = {"warm": "cold start, warm page cache", "cold": "cold start, empty page cache"}
    measured = [cache for cache in caches if cache in starts[next(iter(starts))]]
    rows = [
        [name, f"{tokens:,}", f"{baked:,}", *(seconds(starts[name][cache]) for cache in measured)]
        for name, (tokens, baked) in lengths.items()
    ]
    return table(["", "tokens of the prompt", "of them baked", *(caches[cache] for cache in measured)], rows)


def _beyond(content: dict[str, Any]) -> list[str]:
    """Which memory sizes Lambda gives more vCPUs than the machine that measured them had."""
    cpus = content["machine"]["cpus"]
    sizes = {memory_mb for _, memory_mb, _ in _kinds(content) if memory_mb and memory_mb > cpus * MB_PER_VCPU}
    if not sizes:
        return []
    named = ", ".join(f"{size:,}" for size in sorted(sizes))
    return [f"- {named} MB: Lambda gives more than this machine's {cpus} vCPUs; measured with {cpus}."]


def sections(content: dict[str, Any]) -> dict[str, str]:
    """Named pieces of Markdown."""
    spreads = {
        _label(kind): summarise([sample["to_first_answer_s"] for sample in samples]).spread
        for kind, samples in _kinds(content).items()
    }
    left = [f"- Failed: {name}: {error}" for name, error in content["failed"].items()]
    left += [f"- Skipped: {reason}." for reason in content.get("skipped", [])]
    notes = [*_ratios(content), *_beyond(content), *left]
    prompts = _prompts(content)
    return {
        "times": f"{_times(content)}\n{noise_note(spreads, content['machine'])}",
        "costs": _costs(content),
        "notes": "\n".join(notes) + "\n" if notes else "",
        **({"prompts": prompts} if prompts else {}),
        **({"images": _images(content)} if content.get("image_bytes") else {}),
        **({"remains": remains(content)} if content.get("remains") else {}),
    }


def _bars(axes: Axes, kinds: dict[Kind, list[dict[str, Any]]], until: float) -> None:
    """One bar of phases for each kind, every run's total as a dot under it, from zero to `until` seconds."""
    for row, samples in enumerate(kinds.values()):
        left = 0.0
        for name, width in _median_split(samples).items():
            label, colour = PHASES[name]
            axes.barh(row, width, left=left, height=0.56, color=colour, label=label if row == 0 else None, lw=0)
            left += width
        totals = [sample["to_first_answer_s"] for sample in samples]
        axes.plot(totals, [row + 0.4] * len(totals), "o", color=INK, ms=2.5, alpha=0.55, mew=0)
        if left < until:
            text = f"  {seconds(summarise(totals).median)}"
            axes.text(left, row, text, va="center", fontsize=9.5, fontweight="bold", clip_on=True)
    axes.set_xlim(0, until)
    axes.set_xlabel("seconds")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def phases(content: dict[str, Any]) -> Figure:
    """Each kind of cold start as one bar of its phases, with every run's total as a dot."""
    kinds = _kinds(content)
    medians = [summarise([sample["to_first_answer_s"] for sample in samples]).median for samples in kinds.values()]
    figure = sheet(
        "Where a cold start goes",
        "From the first event sent to a new environment to its one-token answer: median of each phase; dots are the "
        f"single runs\n{provenance(content)}",
        height=2.4 + 0.5 * len(kinds),
    )
    enlarged = max(medians) > 3 * min(medians)
    panels = figure.subplots(1, 2 if enlarged else 1, sharey=True, squeeze=False)[0]
    _bars(panels[0], kinds, max(sample["to_first_answer_s"] for sample in content["samples"]) * 1.2)
    if enlarged:
        panels[0].set_title("all of it", loc="left", fontsize=10.5)
        panels[1].set_title("the beginning, enlarged", loc="left", fontsize=10.5)
        _bars(panels[1], kinds, min(medians) * 2)
    panels[0].set_yticks(range(len(kinds)), [_label(kind) for kind in kinds])
    panels[0].invert_yaxis()
    legend_below(figure, panels[0])
    return figure


FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {"phases": phases}
