"""sampling.py against transformers' own logits processors, and the statistics of its draws."""

from collections import Counter
from random import Random

import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from engines.base import Logits
from generation.history import History
from generation.params import SamplingParams
from generation.sampling import adjust, candidates, log_softmax, sample

VOCAB = 3000  # more than NUCLEUS_CANDIDATES, so that top-p's fallback to the whole vocabulary is met


def random_logits(seed: int, scale: float = 4.0) -> Logits:
    return (np.random.default_rng(seed).standard_normal(VOCAB) * scale).astype(np.float32)


def reference(logits: Logits, processors: list[LogitsProcessor], prompt: list[int]) -> Logits:
    """Probabilities `[V]` after transformers' processors."""
    scores = LogitsProcessorList(processors)(torch.LongTensor([prompt]), torch.FloatTensor(logits)[None])
    probabilities: Logits = torch.softmax(scores[0].double(), dim=-1).numpy()
    return probabilities


def ours(logits: Logits, params: SamplingParams) -> Logits:
    tokens, weights = candidates(logits, params)
    probabilities = np.zeros(len(logits))
    probabilities[tokens] = weights / weights.sum()
    return probabilities.astype(np.float64)


@pytest.mark.parametrize("scale", [0.05, 1.0, 8.0])
@pytest.mark.parametrize(
    ("params", "processors"),
    [
        (SamplingParams(temperature=0.7), [TemperatureLogitsWarper(0.7)]),
        (SamplingParams(top_k=40), [TopKLogitsWarper(40)]),
        (SamplingParams(top_p=0.9), [TopPLogitsWarper(0.9)]),
        (SamplingParams(min_p=0.1), [MinPLogitsWarper(0.1)]),
        (
            SamplingParams(temperature=1.3, top_k=500, top_p=0.8, min_p=0.02),
            [TemperatureLogitsWarper(1.3), TopKLogitsWarper(500), TopPLogitsWarper(0.8), MinPLogitsWarper(0.02)],
        ),
    ],
    ids=["temperature", "top_k", "top_p", "min_p", "all"],
)
def test_kept_tokens_and_their_probabilities_equal_transformers(
    params: SamplingParams, processors: list[LogitsProcessor], scale: float
) -> None:
    for seed in range(5):
        logits = random_logits(seed, scale)
        expected = reference(logits, processors, prompt=[1])
        np.testing.assert_allclose(ours(logits, params), expected, rtol=2e-4, atol=1e-9)


def test_repetition_penalty_equals_transformers() -> None:
    logits, prompt = random_logits(1), [5, 6, 5, 2999]
    expected = RepetitionPenaltyLogitsProcessor(1.7)(torch.LongTensor([prompt]), torch.FloatTensor(logits)[None])[0]
    adjusted = adjust(logits, SamplingParams(repetition_penalty=1.7), History(prompt))
    np.testing.assert_allclose(adjusted, expected.numpy(), rtol=1e-6)


def test_presence_and_frequency_penalties_count_the_completion_alone() -> None:
    history = History([7, 7, 7])
    for token in (3, 3, 4):
        history.add(token)
    params = SamplingParams(presence_penalty=0.5, frequency_penalty=0.25)
    change = adjust(np.zeros(10, dtype=np.float32), params, history)
    assert change.tolist() == [0, 0, 0, -1.0, -0.75, 0, 0, 0, 0, 0]


def test_logit_bias_forbids_and_forces_tokens() -> None:
    logits = random_logits(2)
    best = int(logits.argmax())
    bias = SamplingParams(temperature=0.0, logit_bias={best: -100.0, 11: 100.0})
    assert sample(adjust(logits, bias, History([1])), bias, Random(0)) == 11


def test_adjusting_leaves_the_engine_s_logits_as_they_were() -> None:
    logits = random_logits(3)
    before = logits.copy()
    adjust(logits, SamplingParams(repetition_penalty=2.0, logit_bias={1: 5.0}), History([1, 2]))
    np.testing.assert_array_equal(logits, before)


def test_greedy_takes_the_lowest_id_on_a_tie() -> None:
    logits = np.array([0, 3, 1, 3], dtype=np.float32)
    assert sample(logits, SamplingParams(temperature=0.0), Random(0)) == 1


def test_draws_follow_the_distribution() -> None:
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.125], dtype=np.float32))
    random, draws = Random(0), 20_000
    counts = Counter(sample(logits, SamplingParams(), random) for _ in range(draws))
    for token, share in enumerate([0.5, 0.25, 0.125, 0.125]):
        spread = (share * (1 - share) / draws) ** 0.5
        assert abs(counts[token] / draws - share) < 5 * spread


def test_the_extremes_of_a_draw_stay_inside_the_vocabulary() -> None:
    class Edge(Random):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def random(self) -> float:
            return self.value

    logits = random_logits(4)
    for value in (0.0, 1.0 - 2**-53):
        assert 0 <= sample(logits, SamplingParams(top_p=0.5), Edge(value)) < VOCAB


def test_log_softmax_equals_torch() -> None:
    logits = random_logits(5, scale=30.0)
    expected = torch.log_softmax(torch.from_numpy(logits).double(), dim=-1).numpy()
    np.testing.assert_allclose(log_softmax(logits), expected, rtol=1e-5, atol=1e-5)
