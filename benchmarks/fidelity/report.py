"""What each precision costs, from a results file's content and nothing else."""

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from benchmarks.tables import table


def _sizes(facts: dict[str, Any]) -> list[str]:
    return [f"{facts[key] / 1e6:.1f} MB" for key in ("size_bytes", "weights_bytes")]


def _row(sample: dict[str, Any]) -> list[str]:
    ours, theirs = sample["perplexity"]
    return [
        sample["variant"],
        f"{ours:.4f} ({ours / theirs - 1:+.2%})",
        f"{sample['divergence']:.5f}" if "divergence" in sample else "",
        f"{sample['agreement']:.2%}",
        f"{sample['difference']:.1e}" if "difference" in sample else "",
        *_sizes(sample),
    ]


def _figures(content: dict[str, Any]) -> str:
    head = ["engine", "perplexity", "KL divergence, nats a token", "same most likely token"]
    head += ["largest difference of logits", "size on disk", "of it weights"]
    rows = [_row(sample) for sample in content["samples"]]
    if not rows:
        return table(head, rows)
    sample, settings = content["samples"][0], content["settings"]
    reference = [f"{sample['perplexity'][1]:.4f}", "", "", "", *_sizes(settings)]
    note = f"Over {sample['positions']:,} tokens of `{settings['text']}`, checkpoint `{settings['checkpoint']}`.\n\n"
    return note + table(head, [["transformers, float32", *reference], *rows])


def sections(content: dict[str, Any]) -> dict[str, str]:
    """Named pieces of Markdown."""
    notes = [f"- Failed: {name}: {error}." for name, error in content["failed"].items()]
    return {"figures": _figures(content), "notes": "\n".join(notes) + "\n" if notes else ""}


FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {}
