"""What shapes cost and save, from a results file's content and nothing else."""

from collections.abc import Callable
from statistics import mean, median
from typing import Any

from matplotlib.figure import Figure

from benchmarks.tables import percent, table


def _all(content: dict[str, Any]) -> list[str]:
    """Our variants, then the peers, that have been measured."""
    measured = {sample["variant"] for sample in content["samples"]}
    return [name for name in [*content["settings"]["models"], *content["settings"]["peers"]] if name in measured]


def _of(content: dict[str, Any], variant: str) -> list[dict[str, Any]]:
    return [sample for sample in content["samples"] if sample["variant"] == variant]


def _rate(samples: list[dict[str, Any]], kind: str) -> float | None:
    """Tokens per second after the first one, the median answer's; None where there are no such answers."""
    answers = [answer for sample in samples for answer in sample["answers"] if answer["kind"] == kind]
    return median((answer["tokens"] - 1) / answer["decode_s"] for answer in answers) if answers else None


def _rates(samples: list[dict[str, Any]], *kinds: str) -> list[float]:
    return [rate for kind in kinds if (rate := _rate(samples, kind)) is not None]


def _speed(content: dict[str, Any]) -> str:
    rows = []
    for variant in _all(content):
        samples = _of(content, variant)
        free, shaped = _rates(samples, "free", "shaped")
        calling = _rates(samples, "chat", "tools")
        length = median(a["tokens"] for sample in samples for a in sample["answers"] if a["kind"] == "shaped")
        rows.append(
            [
                variant,
                f"{free:,.0f}",
                f"{shaped:,.0f}",
                f"{shaped / free:.2f}",
                f"{length:g}",
                f"{calling[1] / calling[0]:.3f}" if calling else "",
            ]
        )
    head = ["median", "free, tokens/s", "JSON, tokens/s", "JSON / free", "tokens of the JSON"]
    return table([*head, "text that may call / free"], rows)


def _masks(content: dict[str, Any]) -> str:
    """Means, since a text takes their sum."""
    steps = {
        samples[0]["vocabulary"]: (variant, 1 / _rates(samples, "free")[0])
        for variant in content["settings"]["models"]
        if (samples := _of(content, variant))
    }
    rows = []
    for size in sorted({sample["vocabulary"] for sample in content["masks"]}):
        samples = [sample for sample in content["masks"] if sample["vocabulary"] == size]
        for i, about in enumerate(samples[0]["texts"]):
            first, later = (
                mean(seconds for sample in samples for seconds in sample["texts"][i][name])
                for name in ("first_s", "later_s")
            )
            variant, step = steps.get(size, ("", 0.0))
            share = f"{percent(first / step)} of {variant}" if step else ""
            rows.append([about["text"], f"{size:,}", f"{1e6 * first:,.0f} µs", f"{1e6 * later:,.0f} µs", share])
    head = ["mean of a mask", "vocabulary", "in a grammar's first text", "in later ones"]
    ready = {
        f"{size:,}": median(sample["ready_s"] for sample in content["masks"] if sample["vocabulary"] == size)
        for size in sorted({sample["vocabulary"] for sample in content["masks"]})
    }
    told = " and ".join(f"{1000 * seconds:,.0f} ms with {size} tokens" for size, seconds in ready.items())
    return (
        table([*head, "first text's, of a decode step"], rows)
        + f"\nThe import of llguidance and its tables of the vocabulary take {told}.\n"
    )


def _first(content: dict[str, Any]) -> str:
    rows = []
    for variant in _all(content):
        samples = _of(content, variant)
        base = median(sample["free_first_s"] for sample in samples)
        more = [
            median(sample[name] for sample in samples) - base if name in samples[0] else None
            for name in ("first_s", "another_s", "again_s")
        ]
        rows.append([variant, *("" if value is None else f"{1000 * max(0.0, value):,.1f} ms" for value in more)])
    return table(["beyond a free request", "the first in a process", "another schema", "the same again"], rows)


def sections(content: dict[str, Any]) -> dict[str, str]:
    """Named pieces of Markdown."""
    missing = "".join(f"- Not measured: {reason}.\n" for reason in content["skipped"])
    pieces = {
        "speed": _speed(content),
        "masks": _masks(content) if content["masks"] else "",
        "first": _first(content),
        "skipped": missing,
    }
    return {name: text for name, text in pieces.items() if text}


FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {}
