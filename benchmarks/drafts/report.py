"""What drafts save and cost, from a results file's content and nothing else."""

from collections.abc import Callable
from statistics import median, quantiles
from typing import Any

from matplotlib.figure import Figure

from benchmarks.tables import percent, table


def _times(content: dict[str, Any]) -> str:
    rows = []
    kinds = dict.fromkeys((s["variant"], s["task"], s["sequences"]) for s in content["samples"])
    models, answers = list(content["settings"]["models"]), content["settings"]["answers"]
    for variant, task, sequences in sorted(kinds, key=lambda k: (models.index(k[0]), k[2], answers.index(k[1]))):
        found: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
        for sample in sorted(content["samples"], key=lambda sample: (sample["round"], sample["call"])):
            if (sample["variant"], sample["task"], sample["sequences"]) == (variant, task, sequences):
                found[sample["drafts"]].append(sample)
        ratios = [plain["decode_s"] / tried["decode_s"] for plain, tried in zip(found[False], found[True], strict=True)]
        accepted, rejected = (median(s[name] for s in found[True]) for name in ("accepted", "rejected"))
        tokens = median(s["tokens"] for s in found[True])
        low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        rows.append(
            [
                variant,
                task,
                str(sequences),
                f"{tokens / sequences:g}",
                f"{median(s['tokens'] / s['decode_s'] for s in found[False]):,.0f}",
                f"{median(s['tokens'] / s['decode_s'] for s in found[True]):,.0f}",
                f"**{median(ratios):.2f}** ({low:.2f} to {high:.2f})",
                percent(accepted / tokens),
                f"{accepted:,.0f} / {rejected:,.0f}",
            ]
        )
    head = ["", "answer", "sequences", "tokens", "tokens/s without", "tokens/s with drafts", "ratio (middle half)"]
    return table([*head, "of the text drafted", "drafted: came / did not"], rows)


def _peers(content: dict[str, Any]) -> str:
    """Tokens a second of one answer with drafts, and how many times that is of the same without."""
    samples = content.get("peers", [])
    engines = list(dict.fromkeys(sample["engine"] for sample in samples))
    rows = []
    for task in dict.fromkeys(sample["task"] for sample in samples):
        row = [task]
        for engine in engines:
            found: dict[bool, list[float]] = {True: [], False: []}
            for sample in sorted(samples, key=lambda sample: (sample["round"], sample["call"])):
                if (sample["engine"], sample["task"]) == (engine, task):
                    found[sample["drafts"]].append(sample["tokens"] / sample["decode_s"])
            row.append(f"{median(found[True]):,.0f} (**{median(found[True]) / median(found[False]):.2f}**)")
        rows.append(row)
    return table(["tokens/s with drafts (times without)", *engines], rows) if rows else ""


def _notes(content: dict[str, Any]) -> str:
    wrong = dict.fromkeys(
        f"- {sample['engine']} gave another answer to: {sample['task']}."
        for sample in content.get("peers", [])
        if not sample["right"]
    )
    return "".join(f"{line}\n" for line in [*(f"- Not measured: {each}." for each in content["skipped"]), *wrong])


def sections(content: dict[str, Any]) -> dict[str, str]:
    """Named pieces of Markdown."""
    return {"times": _times(content), "peers": _peers(content), "notes": _notes(content)}


FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {}
