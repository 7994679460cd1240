"""What the compiler measures of an artifact before it believes in it."""

from collections.abc import Sequence

import numpy as np

from compiler.measure import last_logits
from engines.base import Logits, Step
from tests.deterministic_engine import DeterministicEngine


class WrongAfterAPrompt(DeterministicEngine):
    """Its graph for single tokens is right at the first position only."""

    def forward(self, steps: Sequence[Step]) -> list[Logits]:
        later = [step.cache.length > 0 and len(step.ids) == 1 for step in steps]
        return [logits + wrong for logits, wrong in zip(super().forward(steps), later, strict=True)]


def test_logits_that_are_compared_come_from_both_graphs() -> None:
    ids = np.arange(1, 31)
    right, wrong = (last_logits(kind(max_rows=13), ids, 8) for kind in (DeterministicEngine, WrongAfterAPrompt))
    assert right.shape == (8, DeterministicEngine.vocab_size)
    assert (right != wrong).all(1).tolist() == [False] * 4 + [True] * 4
    engine = DeterministicEngine()
    np.testing.assert_array_equal(right, engine.forward([Step(ids, engine.new_cache(), 8)])[0])


def test_a_prompt_of_one_token_is_compared_as_well() -> None:
    engine = DeterministicEngine()
    one = np.array([5])
    np.testing.assert_array_equal(last_logits(engine, one, 8), engine.forward([Step(one, engine.new_cache())])[0])
