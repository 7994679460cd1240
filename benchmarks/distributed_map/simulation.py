"""A file of requests answered by environments that take one batch after the other, and AWS's bill for it.

Each environment starts cold with its first batch. The lines of a batch are taken to run one after the other, which is
the most that they can take: in the function they share forward passes.
"""

import heapq
from dataclasses import dataclass

import numpy as np

from benchmarks.break_even.choices import billed
from benchmarks.break_even.function import Function
from benchmarks.break_even.prices import Prices

SCALING = 1000, 10.0
"""Environments that Lambda adds to a function, in so many seconds [AWS documentation, "Lambda scaling behavior"]."""
TRANSITIONS = 2
"""State transitions of a batch's execution: its start and its task."""
NEEDS = ("request", "gb_second", "state_transition")


@dataclass(frozen=True)
class Outcome:
    """What a file took."""

    seconds: float
    invocations: int
    environments: int
    longest_s: float
    """The longest invocation, which Timeout has to allow."""
    lambda_usd: float
    states_usd: float


def simulate(
    function: Function, prices: Prices, lines: int, items: int, most: int, rng: np.random.Generator
) -> Outcome:
    """`lines` requests, `items` to an invocation, on at most `most` environments."""
    service = function.sample_service(rng, lines)
    batches = np.add.reduceat(service, np.arange(0, lines, items))
    environments = min(most, len(batches))
    added, every = SCALING
    free = [every * (number // added) for number in range(environments)]  # sorted, so a heap
    cold = [True] * environments
    ready = [(at, number) for number, at in enumerate(free)]
    durations = np.empty(len(batches))
    end = 0.0
    for place, seconds in enumerate(batches):
        at, number = heapq.heappop(ready)
        durations[place] = seconds + (function.cold_s if cold[number] else 0.0)
        cold[number] = False
        end = max(end, at + durations[place])
        heapq.heappush(ready, (at + durations[place], number))
    gb_seconds = float(billed(durations).sum()) * function.gb
    return Outcome(
        seconds=float(end),
        invocations=len(batches),
        environments=environments,
        longest_s=float(durations.max()),
        lambda_usd=gb_seconds * prices["gb_second"] + len(batches) * prices["request"],
        states_usd=TRANSITIONS * len(batches) * prices["state_transition"],
    )
