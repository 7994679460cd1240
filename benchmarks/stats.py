"""Percentiles, spread, and ratios taken pairwise. What a run says about its own noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

NOISY = 0.1
"""A run is called noisy when the middle half of its samples spreads over more than this share of the median."""


@dataclass(frozen=True)
class Summary:
    """Of one set of samples, in their unit."""

    n: int
    median: float
    p95: float
    p99: float
    lowest: float
    spread: float
    """Interquartile range over the median."""

    @property
    def noisy(self) -> bool:
        """Whether the samples differ more than a figure should hide."""
        return self.spread > NOISY


def summarise(samples: Sequence[float]) -> Summary:
    """The figures of a set of samples; of an empty one, not a number."""
    if not len(samples):
        nan = float("nan")
        return Summary(0, nan, nan, nan, nan, nan)
    low, median, high, p95, p99 = (float(q) for q in np.percentile(samples, [25, 50, 75, 95, 99]))
    return Summary(len(samples), median, p95, p99, float(np.min(samples)), (high - low) / median if median else 0.0)


def paired_ratio(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """Median and quartiles of `other` over `one`, each ratio within the same round of an interleaved run."""
    ratios = np.array(other, dtype=float) / np.array(one, dtype=float)
    low, median, high = (float(q) for q in np.percentile(ratios, [25, 50, 75]))
    return median, low, high


def noise_note(spreads: Mapping[str, float], machine: Mapping[str, Any]) -> str:
    """How far the figures can be trusted: from their own spread, and from what ran here when they were begun."""
    noisy = {name: spread for name, spread in spreads.items() if spread > NOISY}
    busy = machine["load_average_at_start"] > machine["cpus"] / 2
    notes = []
    if noisy:
        worst = max(noisy, key=noisy.__getitem__)
        notes.append(
            f"**Noisy run**: in {len(noisy)} of {len(spreads)} sets the middle half of the samples spreads over more "
            f"than {NOISY:.0%} of the median ({noisy[worst]:.0%} for {worst}); take these figures with that width."
        )
    else:
        worst_spread = max(spreads.values(), default=0.0)
        notes.append(
            f"Within a set, the middle half of the samples spreads over at most {worst_spread:.0%} of the median."
        )
    if busy:
        notes.append(
            f"**Busy machine**: the load average was {machine['load_average_at_start']:g} on {machine['cpus']} CPUs "
            "when the run began; times are too long by an unknown part, ratios are fairer."
        )
    return " ".join(notes) + "\n"
