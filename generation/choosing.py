"""The token after a row of logits: by native code where that holds the row, by numpy elsewhere. The same from both.

numpy is imported with the first row that is an array: no start of the compiled engine waits for it.
"""

from array import array
from collections.abc import Collection
from random import Random
from typing import Any

from engines.native_rows import NativeChoice, NativeRow
from generation.history import History
from generation.params import GREEDY_BELOW, SamplingParams


def choose(
    row: Any,
    params: SamplingParams,
    history: History,
    random: Random,
    allowed: bytearray | None = None,
    barred: Collection[int] = (),
) -> int:
    """One token id from logits `[V]`: an array, or a NativeRow. Draws once from `random` unless greedy.

    `allowed` has a bit for each token that may come, None for all; those in `barred` may not.
    """
    if isinstance(row, NativeRow):
        return _choose_natively(row, params, history, random, allowed, barred)
    from generation import sampling

    scores = sampling.adjust(row, params, history)
    return sampling.sample(sampling.allowed_only(scores, allowed, barred), params, random)


def describe(row: Any, token: int, count: int) -> tuple[float, tuple[tuple[int, float], ...]]:
    """The log-probability of `token` under logits `[V]`, and the `count` likeliest tokens with theirs, best first."""
    if isinstance(row, NativeRow):
        return row.describe(token, count)
    from generation import sampling

    return sampling.describe(row, token, count)


def _choose_natively(
    row: NativeRow,
    params: SamplingParams,
    history: History,
    random: Random,
    allowed: bytearray | None,
    barred: Collection[int],
) -> int:
    greedy = params.temperature < GREEDY_BELOW
    choice = NativeChoice(
        temperature=0.0 if greedy else params.temperature,
        top_p=params.top_p,
        min_p=params.min_p,
        top_k=params.top_k,
        repetition=params.repetition_penalty,
        presence=params.presence_penalty,
        frequency=params.frequency_penalty,
    )
    if params.repetition_penalty != 1.0:
        choice.seen, choice.seen_count = history.seen.buffer_info()
    if params.presence_penalty or params.frequency_penalty:
        choice.made, choice.made_count = history.made.buffer_info()
        choice.counts, _ = history.counts.buffer_info()
    # These must live until the choice is made.
    biased, biases, without = array("q", params.logit_bias), array("f", params.logit_bias.values()), array("q", barred)
    choice.biased, choice.biased_count = biased.buffer_info()
    choice.biases, _ = biases.buffer_info()
    choice.barred, choice.barred_count = without.buffer_info()
    return row.choose(choice, allowed, 0.0 if greedy else random.random())
