"""Time to the first byte, streamed beside whole, from a results file's content and nothing else."""

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from benchmarks.stats import summarise
from benchmarks.tables import seconds, table


def _median(content: dict[str, Any], variant: str, door: str, length: int, what: str) -> float:
    return summarise(
        [
            sample[what]
            for sample in content["samples"]
            if (sample["variant"], sample["door"], sample["output_tokens"]) == (variant, door, length)
        ]
    ).median


def _first_byte(content: dict[str, Any]) -> str:
    rows = []
    kinds = dict.fromkeys((sample["variant"], sample["output_tokens"]) for sample in content["samples"])
    for variant, length in sorted(
        kinds, key=lambda kind: (list(content["settings"]["models"]).index(kind[0]), kind[1])
    ):
        streamed, whole = (_median(content, variant, door, length, "first_byte_s") for door in ("streamed", "whole"))
        lasts = [_median(content, variant, door, length, "last_byte_s") for door in ("streamed", "whole")]
        rows.append([f"{variant}, {length} tokens", f"**{seconds(streamed)}**", *map(seconds, (whole, *lasts))])
    head = ["median", "first byte, streamed", "first byte, whole", "last byte, streamed", "last byte, whole"]
    settings = content["settings"]
    # Earlier results say only what was asked for.
    lengths = sorted({sample.get("prompt_tokens", settings["prompt_tokens"]) for sample in content["samples"]})
    prompts = " and ".join(map(str, lengths))
    return f"Prompts of {prompts} tokens, {settings['calls']} calls of each kind.\n\n{table(head, rows)}"


def sections(content: dict[str, Any]) -> dict[str, str]:
    """Named pieces of Markdown."""
    return {"first-byte": _first_byte(content)}


FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {}
