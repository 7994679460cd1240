"""Logits to the next token with numpy: pure functions over one row of logits, the reference of `native/sampling.cpp`.

Knows nothing of text, engines or requests. Order of the steps as in transformers' `generate`: bias and penalties on
raw logits, then temperature, top-k, top-p, min-p, then one draw.
"""

from collections.abc import Collection
from random import Random

import numpy as np
import numpy.typing as npt

from engines.base import Logits
from generation.history import History
from generation.params import GREEDY_BELOW, SamplingParams

Probabilities = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

NUCLEUS_CANDIDATES = 1024
"""How many of the likeliest tokens top-p sorts before it falls back to sorting the whole vocabulary."""


def adjust(logits: Logits, params: SamplingParams, history: History) -> Logits:
    """Logit bias and penalties, `[V]` to `[V]`; the input is left as it was.

    Repetition penalty as in Keskar et al. 2019 (arXiv:1909.05858), over prompt and completion; presence and frequency
    penalties as OpenAI documents them, over the completion.
    """
    penalised = params.repetition_penalty != 1.0
    counted = params.presence_penalty != 0.0 or params.frequency_penalty != 0.0
    if not (penalised or counted or params.logit_bias):
        return logits
    adjusted = logits.copy()
    if penalised:
        seen = np.frombuffer(history.seen, np.int64)
        values = adjusted[seen]
        scale = np.float32(params.repetition_penalty)
        adjusted[seen] = np.where(values < 0, values * scale, values / scale)
    if counted:
        counts = np.frombuffer(history.counts, np.float32)
        adjusted[np.frombuffer(history.made, np.int64)] -= (
            np.float32(params.presence_penalty) + np.float32(params.frequency_penalty) * counts
        )
    for token, bias in params.logit_bias.items():
        adjusted[token] += np.float32(bias)
    return adjusted


def allowed_only(scores: Logits, allowed: bytes | bytearray | None, barred: Collection[int]) -> Logits:
    """`scores [V]` with minus infinity for what may not come: tokens without a bit in `allowed`, and the `barred`."""
    if allowed is not None:
        bits = np.unpackbits(np.frombuffer(allowed, np.uint8), count=len(scores), bitorder="little")
        scores = np.where(bits.view(bool), scores, np.float32(-np.inf))
    if barred:
        scores = scores.copy()
        scores[list(barred)] = -np.inf
    return scores


def describe(logits: Logits, token: int, count: int) -> tuple[float, tuple[tuple[int, float], ...]]:
    """The log-probability of `token`, and the `count` likeliest tokens with theirs, best first."""
    logprobs = log_softmax(logits)
    best = np.argpartition(-logprobs, count)[:count] if 0 < count < len(logprobs) else np.arange(0)
    best = best[np.argsort(-logprobs[best], kind="stable")]
    return float(logprobs[token]), tuple((int(i), float(logprobs[i])) for i in best)


def log_softmax(logits: Logits) -> Logits:
    """Natural logarithm of the probabilities, `[V]` to `[V]`."""
    shifted = logits - logits.max()
    result: Logits = shifted - np.log(np.exp(shifted).sum(dtype=np.float64)).astype(np.float32)
    return result


def sample(logits: Logits, params: SamplingParams, random: Random) -> int:
    """One token id from adjusted logits `[V]`. Draws once from `random` unless greedy."""
    if params.temperature < GREEDY_BELOW:
        return int(logits.argmax())
    tokens, probabilities = candidates(logits, params)
    cumulative = np.cumsum(probabilities)
    drawn = int(np.searchsorted(cumulative, random.random() * cumulative[-1], side="right"))
    last = int(np.searchsorted(cumulative, cumulative[-1]))  # of those with any weight, where rounding reaches the sum
    return int(tokens[min(drawn, last)])


def candidates(logits: Logits, params: SamplingParams) -> tuple[Indices, Probabilities]:
    """The tokens that may be drawn, `[C]`, likeliest first where an order is needed, and their weights, `[C]`."""
    weights = np.exp((logits.astype(np.float64) - float(logits.max())) / params.temperature)
    tokens: Indices = np.arange(len(logits), dtype=np.int64)
    if 0 < params.top_k < len(logits):
        tokens = _likeliest(weights, params.top_k)
        weights = weights[tokens]
    if params.top_p < 1.0:
        kept = _nucleus(weights, params.top_p)
        tokens, weights = tokens[kept], weights[kept]
    if params.min_p > 0.0:
        kept = np.flatnonzero(weights >= params.min_p * weights.max())
        tokens, weights = tokens[kept], weights[kept]
    return tokens, weights


def _likeliest(weights: Probabilities, count: int) -> Indices:
    """Indices of the `count` largest weights, largest first, the lower index first on a tie."""
    if count < len(weights):
        smallest = np.partition(weights, len(weights) - count)[len(weights) - count]
        indices = np.flatnonzero(weights >= smallest)
    else:
        indices = np.arange(len(weights))
    return indices[np.argsort(-weights[indices], kind="stable")][:count]


def _nucleus(weights: Probabilities, top_p: float) -> Indices:
    """Indices of the smallest set of likeliest tokens whose share reaches `top_p` (Holtzman et al. 2019)."""
    target = top_p * weights.sum()
    for count in (NUCLEUS_CANDIDATES, len(weights)):
        indices = _likeliest(weights, count)
        cumulative = np.cumsum(weights[indices])
        if cumulative[-1] >= target:
            break
    return indices[: int(np.searchsorted(cumulative, target)) + 1]
