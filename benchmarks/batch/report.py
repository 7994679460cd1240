"""Many sequences at once in tables and a plot, from a results file's content and nothing else."""

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks.plots import BLUE, GREY, ORANGE, PURPLE, TEAL, sheet
from benchmarks.results import provenance
from benchmarks.stats import noise_note, paired_ratio, summarise
from benchmarks.tables import milliseconds, seconds, table

COLOURS = (BLUE, TEAL, ORANGE, PURPLE, GREY)


def _rows(content: dict[str, Any]) -> str:
    """What a pass costs against that of one row."""
    kinds: dict[tuple[str, str, int], dict[int, float]] = {}
    for each in content["rows"]:
        kind = (each["variant"], each["level"], each["threads"])
        kinds.setdefault(kind, {})[each["rows"]] = summarise(each["pass_s"]).median
    counts = sorted({each["rows"] for each in content["rows"]})
    lines = []
    for (variant, level, threads), took in kinds.items():
        cells = [f"{milliseconds(took[n])} ({took[n] / took[counts[0]]:.2f})" for n in counts]
        lines.append([f"{variant}, {level}, {threads} threads", *cells])
    return table(["rows in a pass: ms (times one row)", *map(str, counts)], lines)


def _counts(content: dict[str, Any]) -> list[int]:
    return sorted({sample["sequences"] for sample in content["samples"]})


def _labels(content: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys([*content["ours"], *(sample["contender"] for sample in content["samples"])]))


def _per_round(
    content: dict[str, Any], label: str, count: int, value: Callable[[dict[str, Any]], float]
) -> list[float]:
    samples = [s for s in content["samples"] if (s["contender"], s["sequences"]) == (label, count)]
    return [value(sample) for sample in sorted(samples, key=lambda sample: int(sample["round"]))]


def _rate(sample: dict[str, Any]) -> float:
    return float(sample["made"] / sample["total_s"])


def _first(sample: dict[str, Any]) -> float:
    return float(sum(sample["first_s"]) / len(sample["first_s"]))


def _engines(content: dict[str, Any]) -> str:
    counts = _counts(content)
    lines = []
    for label in _labels(content):
        rates = [f"{summarise(_per_round(content, label, n, _rate)).median:,.0f}" for n in counts]
        lines.append([f"**{label}**" if label in content["ours"] else label, *rates])
    return table(["tokens a second of all, sequences:", *map(str, counts)], lines)


def _firsts(content: dict[str, Any]) -> str:
    counts = _counts(content)
    lines = []
    for label in _labels(content):
        waits = [seconds(summarise(_per_round(content, label, n, _first)).median) for n in counts]
        lines.append([f"**{label}**" if label in content["ours"] else label, *waits])
    return table(["wait for a first token, mean, sequences:", *map(str, counts)], lines)


def _ratios(content: dict[str, Any]) -> str:
    """How many times as many tokens a second as each peer of the same precision, in the same round."""
    counts = _counts(content)
    lines = []
    for ours in content["ours"]:
        for rival in (label for label in _labels(content) if label not in content["ours"]):
            if not any(bits in ours and bits in rival for bits in ("int8", "int4")):
                continue
            cells = []
            for n in counts:
                pair = [_per_round(content, label, n, _rate) for label in (rival, ours)]
                cells.append(f"{paired_ratio(*pair)[0]:.2f}" if 0 < len(pair[0]) == len(pair[1]) else "-")
            lines.append([f"{ours} / {rival}", *cells])
    return table(["tokens a second, ratio, sequences:", *map(str, counts)], lines)


def _memory(content: dict[str, Any]) -> str:
    lines = [
        [
            f"{each['variant']}, {each['sequences']} sequences of {each['tokens']:,} tokens",
            f"{each['cache_bytes'] / 1e6:,.0f} MB",
            f"{each['added_bytes'] / 1e6:,.0f} MB",
        ]
        for each in content["memory"]
    ]
    return table(["", "keys and values, at most", "added to the process"], lines)


def _seconds(content: dict[str, Any], state: str, variant: str, scenario: str, part: str = "") -> list[float]:
    samples = [s for s in content["callers"] if (s["state"], s["variant"], s["scenario"]) == (state, variant, scenario)]
    samples.sort(key=lambda sample: int(sample["round"]))
    return [float(s["seconds"][part] if part else s["seconds"]) for s in samples]


def _ratio(one: Sequence[float], other: Sequence[float]) -> str:
    return f"**{paired_ratio(one, other)[0]:.2f}**"


def _callers(content: dict[str, Any]) -> str:
    """What many callers at once cost, as ratios within a round."""
    states = list(dict.fromkeys(sample["state"] for sample in content["callers"]))
    variants = list(dict.fromkeys(sample["variant"] for sample in content["callers"]))
    tokens = content["settings"]["tokens"]
    lines = []
    for variant in variants:

        def line(
            what: str, value: Callable[[str], list[float]], show: Callable[[float], str], name: str = variant
        ) -> None:
            cells = [show(summarise(value(state)).median) for state in states]
            pair = [value(state) for state in states]
            lines.append([f"{name}: {what}", *cells, *([_ratio(pair[1], pair[0])] if len(pair) == 2 else [])])

        def of(scenario: str, part: str = "", name: str = variant) -> Callable[[str], list[float]]:
            return lambda state: _seconds(content, state, name, scenario, part)

        def against(
            many: Callable[[str], list[float]], one: Callable[[str], list[float]]
        ) -> Callable[[str], list[float]]:
            return lambda state: [a / b for a, b in zip(many(state), one(state), strict=True)]

        line("one request", of("lone"), seconds)
        line("8 clients, 2 requests each", of("together"), seconds)
        line("the same, tokens a second", of("together"), lambda s: f"{16 * tokens / s:,.0f}")
        line(
            "first token of a newcomer beside 7, times alone",
            against(of("newcomer", "beside"), of("newcomer", "alone")),
            "{:.2f}".format,
        )
        line("8 choices of one prompt, times one request", against(of("choices"), of("lone")), "{:.2f}".format)
        line("queue's batch of 10, times one message", against(of("many"), of("one")), "{:.2f}".format)
    return table(["", *states, *(["before / now"] if len(states) == 2 else [])], lines)


def sections(content: dict[str, Any]) -> dict[str, str]:
    """Named pieces of Markdown."""
    found = {}
    if content["rows"]:
        found["rows"] = _rows(content)
    if content["samples"]:
        spreads = {
            f"{label}, {n} sequences": summarise(_per_round(content, label, n, _rate)).spread
            for label in _labels(content)
            for n in _counts(content)
        }
        found |= {"engines": _engines(content), "first": _firsts(content), "ratios": _ratios(content)}
        found["noise"] = noise_note(spreads, content["machine"])
    if content["memory"]:
        found["memory"] = _memory(content)
    if content["callers"]:
        found["callers"] = _callers(content)
    left = [f"- Failed: {name}: {error}." for name, error in content["failed"].items()]
    left += [f"- Skipped: {reason}." for reason in content["skipped"]]
    found["notes"] = "\n".join(left) + "\n" if left else ""
    return found


def throughput(content: dict[str, Any]) -> Figure:
    """Tokens a second of all sequences against their number, one panel a precision."""
    precisions = [bits for bits in ("int8", "int4") if any(bits in label for label in _labels(content))]
    figure = sheet(
        "Many sequences at once",
        f"{content['settings']['checkpoint']}, prompts of {content['settings']['prompt_tokens']} tokens, "
        f"{content['settings']['tokens']} tokens each; medians\n{provenance(content)}",
        height=4.2,
    )
    panels = figure.subplots(1, max(1, len(precisions)), sharey=True, squeeze=False)[0]
    counts = _counts(content)
    for axes, bits in zip(panels, precisions, strict=False):
        axes.set_title(f"{bits}, tokens a second", loc="left", fontsize=10.5)
        for colour, label in zip(COLOURS, (name for name in _labels(content) if bits in name), strict=False):
            rates = [summarise(_per_round(content, label, n, _rate)).median for n in counts]
            axes.plot(counts, rates, "o-", color=colour, label=label)
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(n) for n in counts])
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=9)
    return figure


FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {"throughput": throughput}
