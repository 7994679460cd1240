"""What shapes cost and save, from a results file's content and nothing else."""

from collections.abc import Callable
from statistics import median, quantiles
from typing import Any

from matplotlib.figure import Figure

from benchmarks.tables import percent, table


def _of(content: dict[str, Any], variant: str) -> list[dict[str, Any]]:
    return [sample for sample in content["samples"] if sample["variant"] == variant]


def _rate(samples: list[dict[str, Any]], kind: str) -> float:
    """Tokens per second after the first one, the median answer's."""
    answers = [answer for sample in samples for answer in sample["answers"] if answer["kind"] == kind]
    rate: float = median((answer["tokens"] - 1) / answer["decode_s"] for answer in answers)
    return rate


def _speed(content: dict[str, Any]) -> str:
    rows = []
    for variant in content["settings"]["models"]:
        samples = _of(content, variant)
        free, shaped = _rate(samples, "free"), _rate(samples, "shaped")
        masks = [seconds for sample in samples for seconds in sample["mask_s"]]
        length = median(a["tokens"] for sample in samples for a in sample["answers"] if a["kind"] == "shaped")
        rows.append(
            [
                variant,
                f"{samples[0]['vocabulary']:,}",
                f"{free:,.0f}",
                f"{shaped:,.0f}",
                f"{shaped / free:.2f}",
                f"{length:g}",
                f"{1e6 * median(masks):,.0f} µs",
                f"{1e6 * quantiles(masks, n=100)[98]:,.0f} µs",
                percent(median(masks) * free),
            ]
        )
    head = ["median", "vocabulary", "free, tokens/s", "JSON, tokens/s", "JSON / free", "tokens of the JSON"]
    return table([*head, "mask", "mask, 99th of 100", "mask / decode step"], rows)


def _first(content: dict[str, Any]) -> str:
    rows = []
    for variant in content["settings"]["models"]:
        samples = _of(content, variant)
        base = median(sample["free_prepare_s"] for sample in samples)
        names = ("first_prepare_s", "another_prepare_s", "again_prepare_s")
        more = [median(sample[name] for sample in samples) - base for name in names]
        rows.append([variant, *(f"{1000 * max(0.0, value):,.1f} ms" for value in more)])
    return table(["beyond a free request", "the first in a process", "another schema", "the same again"], rows)


def sections(content: dict[str, Any]) -> dict[str, str]:
    """Named pieces of Markdown."""
    return {"speed": _speed(content), "first": _first(content)}


FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {}
