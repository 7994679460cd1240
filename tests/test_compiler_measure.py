"""What the compiler measures of an artifact before it believes in it."""

import numpy as np

from compiler.measure import last_logits
from engines.base import Logits, TokenIds
from tests.deterministic_engine import DeterministicEngine, HistoryCache


class WrongAfterAPrompt(DeterministicEngine):
    """Its graph for single tokens is right at the first position only."""

    def forward(self, ids: TokenIds, cache: HistoryCache, last: int = 1) -> Logits:
        later = cache.length > 0 and len(ids) == 1
        return super().forward(ids, cache, last) + later


def test_logits_that_are_compared_come_from_both_graphs() -> None:
    ids = np.arange(1, 31)
    right, wrong = (last_logits(kind(prefill_chunk=13), ids, 8) for kind in (DeterministicEngine, WrongAfterAPrompt))
    assert right.shape == (8, DeterministicEngine.vocab_size)
    assert (right != wrong).all(1).tolist() == [False] * 4 + [True] * 4
    engine = DeterministicEngine()
    np.testing.assert_array_equal(right, engine.forward(ids, engine.new_cache(30), last=8))


def test_a_prompt_of_one_token_is_compared_as_well() -> None:
    engine = DeterministicEngine()
    one = np.array([5])
    np.testing.assert_array_equal(last_logits(engine, one, 8), engine.forward(one, engine.new_cache(1)))
