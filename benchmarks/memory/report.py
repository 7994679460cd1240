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


def _baked(content: dict[str, Any]) -> str:
    """What of the mapped pages of a prompt is in memory: in each process, and of all processes together."""
    rows = []
    for name, about in content["settings"].get("baked", {}).items():
        held = [sample["baked"] for sample in _variants(content).get(name, [])]
        if held:
            each = max(own["private_bytes"] + own["shared_bytes"] for own in held)
            together = sum(own["proportional_bytes"] for own in held)
            sizes = (f"{size / 1e6:.1f} MB" for size in (about["file_bytes"], each, together))
            rows.append([name, f"{about['tokens']:,}", *sizes, f"**{together / about['file_bytes']:.2f}**"])
    head = ["tokens baked", "their file", "of it in each process", "of it in all together (PSS)", "copies"]
    return table([f"{content['settings']['processes']} processes", *head], rows) if rows else ""


def sections(content: dict[str, Any]) -> dict[str, str]:
    """Named pieces of Markdown."""
    notes = [f"- Failed: {name}: {error}." for name, error in content["failed"].items()]
    return {
        "peak": _peak(content),
        "together": _together(content),
        "baked": _baked(content),
        "notes": "\n".join(notes) + "\n" if notes else "",
    }


FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {}
