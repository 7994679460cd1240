"""Logits to the next token: pure functions over one row of logits.

Knows nothing of text, engines or requests. Order of the steps as in transformers' `generate`: bias and penalties on
raw logits, then temperature, top-k, top-p, min-p, then one draw.
"""

from collections.abc import Mapping
from random import Random

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field

from engines.base import Logits, TokenIds

Probabilities = npt.NDArray[np.float64]

GREEDY_BELOW = 1e-5
"""A temperature this small leaves the likeliest token only, and dividing by it can overflow."""
NUCLEUS_CANDIDATES = 1024
"""How many of the likeliest tokens top-p sorts before it falls back to sorting the whole vocabulary."""


class SamplingParams(Struct, frozen=True):
    """How to choose a token. The defaults leave the model's distribution as it is."""

    temperature: float = 1.0
    """0 is greedy: the likeliest token, the lowest id on a tie."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps every token."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    """None draws a fresh seed from the operating system, so restored snapshots never sample alike."""


class History:
    """What the penalties need to know of one sequence: which tokens occurred, and how often in the completion."""

    def __init__(self, prompt: TokenIds) -> None:
        self._seen = set(prompt.tolist())
        self._counts: dict[int, int] = {}

    def add(self, token: int) -> None:
        """Note one generated token."""
        self._seen.add(token)
        self._counts[token] = self._counts.get(token, 0) + 1

    @property
    def seen(self) -> TokenIds:
        """Distinct tokens of prompt and completion, `[*]`."""
        return np.fromiter(self._seen, dtype=np.int64, count=len(self._seen))

    @property
    def counts(self) -> tuple[TokenIds, Logits]:
        """Distinct tokens of the completion and how often each occurred, `[*]` and `[*]`."""
        tokens = np.fromiter(self._counts.keys(), dtype=np.int64, count=len(self._counts))
        return tokens, np.fromiter(self._counts.values(), dtype=np.float32, count=len(self._counts))


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
        seen = history.seen
        values = adjusted[seen]
        scale = np.float32(params.repetition_penalty)
        adjusted[seen] = np.where(values < 0, values * scale, values / scale)
    if counted:
        tokens, counts = history.counts
        adjusted[tokens] -= np.float32(params.presence_penalty) + np.float32(params.frequency_penalty) * counts
    for token, bias in params.logit_bias.items():
        adjusted[token] += np.float32(bias)
    return adjusted


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


def candidates(logits: Logits, params: SamplingParams) -> tuple[TokenIds, Probabilities]:
    """The tokens that may be drawn, `[C]`, likeliest first where an order is needed, and their weights, `[C]`."""
    weights = np.exp((logits.astype(np.float64) - float(logits.max())) / params.temperature)
    tokens: TokenIds = np.arange(len(logits), dtype=np.int64)
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


def _likeliest(weights: Probabilities, count: int) -> TokenIds:
    """Indices of the `count` largest weights, largest first, the lower index first on a tie."""
    if count < len(weights):
        smallest = np.partition(weights, len(weights) - count)[len(weights) - count]
        indices = np.flatnonzero(weights >= smallest)
    else:
        indices = np.arange(len(weights))
    return indices[np.argsort(-weights[indices], kind="stable")][:count]


def _nucleus(weights: Probabilities, top_p: float) -> TokenIds:
    """Indices of the smallest set of likeliest tokens whose share reaches `top_p` (Holtzman et al. 2019)."""
    target = top_p * weights.sum()
    for count in (NUCLEUS_CANDIDATES, len(weights)):
        indices = _likeliest(weights, count)
        cumulative = np.cumsum(weights[indices])
        if cumulative[-1] >= target:
            break
    return indices[: int(np.searchsorted(cumulative, target)) + 1]
