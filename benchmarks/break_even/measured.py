"""A function's times from results files of `cold-start`, `warm` and `prefix`, in the words of `Function`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.errors import InputError


def _of_variant(content: dict[str, Any], variant: str | None) -> list[dict[str, Any]]:
    names = list(content["settings"]["models"])
    if variant is not None and variant not in names:
        raise InputError(f"--variant {variant!r} is not in these results; they have {', '.join(names)}.")
    wanted = variant or names[0]
    samples = [sample for sample in content["samples"] if sample["variant"] == wanted]
    if not samples:
        raise InputError(f"the results hold no sample of {wanted}.")
    return samples


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def measured_cold(content: dict[str, Any], variant: str | None) -> dict[str, float]:
    """`cold_s`: process start to ready. `load_s`: of it, what a handler does that loads on every request.

    That is reading weights and tokenizer; imports happen once either way.
    """
    samples = _of_variant(content, variant)
    first = (samples[0]["memory_mb"], samples[0]["cache"])
    phases = [s["phases_s"] for s in samples if (s["memory_mb"], s["cache"]) == first]
    return {
        "cold_s": _median([phase["total"] for phase in phases]),
        "load_s": _median([phase["weights"] + phase["tokenizer"] for phase in phases]),
    }


def measured_warm(content: dict[str, Any], variant: str | None) -> dict[str, float]:
    """`warm_s` and `warm_cv` over all kinds of single-prompt request in the file, each kind counting the same."""
    samples = [sample for sample in _of_variant(content, variant) if sample["prompts"] == 1]
    kinds: dict[tuple[int, int], list[float]] = {}
    for sample in samples:
        kinds.setdefault((sample["prompt_tokens"], sample["output_tokens"]), []).append(sample["call_s"])
    per_kind = [_median(times) for times in kinds.values()]
    mean = float(np.mean(per_kind))
    return {"warm_s": mean, "warm_cv": float(np.std(per_kind)) / mean}


def measured_typical(content: dict[str, Any], variant: str | None) -> dict[str, float]:
    """`warm_s` and `warm_cv` of the typical request, whose instructions an earlier one has read."""
    samples = _of_variant(content, variant)
    times = [sample["call_s"] for sample in samples if sample["kind"] == "typical" and sample["reuses"]]
    mean = float(np.mean(times))
    return {"warm_s": mean, "warm_cv": float(np.std(times)) / mean}
