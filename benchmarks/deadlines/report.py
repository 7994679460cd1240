"""Answers beside the time that was left, from a results file's content and nothing else."""

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from benchmarks.stats import summarise
from benchmarks.tables import seconds, table


def _answers(content: dict[str, Any]) -> str:
    kinds: dict[tuple[str, str, str, float], list[dict[str, Any]]] = {}
    for each in content["samples"]:
        kinds.setdefault((each["variant"], each["case"], each["machine"], each["left_s"]), []).append(each)
    rows = []
    for (variant, case, machine, left), samples in kinds.items():
        took = [each["took_s"] for each in samples]
        late = sum(each > left for each in took)
        cells = [seconds(left), seconds(summarise(took).median), seconds(max(took)), f"{late} of {len(took)}"]
        rows.append([f"{variant}, {case}, {machine}", *cells])
    head = ["request", "left", "answered after, median", "latest", "late"]
    settings = content["settings"]
    calls = f"Prompts of {settings['prompt_tokens']:,} tokens, {settings['calls']} calls of each kind."
    return f"{calls}\n\n{table(head, rows)}"


def sections(content: dict[str, Any]) -> dict[str, str]:
    """Named pieces of Markdown."""
    return {"answers": _answers(content)}


FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {}
