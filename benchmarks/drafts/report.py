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


def sections(content: dict[str, Any]) -> dict[str, str]:
    """Named pieces of Markdown."""
    return {"times": _times(content)}


FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {}
