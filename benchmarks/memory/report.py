"""Peak memory beside the weights, and what processes share, from a results file's content and nothing else."""

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from benchmarks.tables import table


def _variants(content: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for sample in content["samples"]:
        found.setdefault(sample["variant"], []).append(sample)
    return found


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def _peak(content: dict[str, Any]) -> str:
    rows = []
    for name, samples in _variants(content).items():
        weights, peak = content["settings"]["weights_bytes"][name], max(sample["peak_bytes"] for sample in samples)
        rows.append([name, *map(_megabytes, (weights, peak, peak - weights))])
    head = ["one process", "weights", "peak memory", "peak less weights"]
    prompt = f"Having answered a prompt of {content['settings']['prompt_tokens']} tokens"
    return f"{prompt}, the largest of {content['settings']['processes']} processes.\n\n{table(head, rows)}"


def _together(content: dict[str, Any]) -> str:
    rows = []
    for name, samples in _variants(content).items():
        weights = content["settings"]["weights_bytes"][name]
        total, private = (sum(sample[key] for sample in samples) for key in ("proportional_bytes", "private_bytes"))
        figures = [_megabytes(size) for size in (total, private, total - private)]
        rows.append([name, *figures, f"{(total - private) / weights:.2f}"])
    head = [f"{content['settings']['processes']} processes", "together", "of it private", "of it shared"]
    return table([*head, "shared / weights of one"], rows)


def sections(content: dict[str, Any]) -> dict[str, str]:
    """Named pieces of Markdown."""
    notes = [f"- Failed: {name}: {error}." for name, error in content["failed"].items()]
    return {
        "peak": _peak(content),
        "together": _together(content),
        "notes": "\n".join(notes) + "\n" if notes else "",
    }


FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {}
