"""A small engine with the production interface, for tests of what happens around a network.

Each next token depends on every token before it, so that requests which disturbed each other would show it, and
`before_forward` lets a test decide when a forward pass happens.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from api.chat import ChatTemplate
from api.model import Model
from engines.base import Logits, TokenIds
from generation.tokenizer import Tokenizer

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
ROWS = 1009
STEP = 6364136223846793005  # Knuth's multiplier for a 64-bit linear congruential generator


class HistoryCache:
    """The whole history in one number."""

    def __init__(self) -> None:
        self.length = 0
        self.state = 1


class DeterministicEngine:
    """Logits looked up by a hash of all tokens so far; id 0, end of sequence, is never likely."""

    name, dtype, device = "deterministic", "float32", "cpu"
    vocab_size = 320
    """That of the tokenizers in `tests/checkpoints.py`."""

    def __init__(
        self, context_length: int = 640, before_forward: Callable[[], None] = lambda: None, prefill_chunk: int = 512
    ) -> None:
        self.context_length = context_length
        self.prefill_chunk = prefill_chunk
        self.before_forward = before_forward
        self.forwards = 0
        self._table = np.random.default_rng(0).standard_normal((ROWS, self.vocab_size)).astype(np.float32) * 3
        self._table[:, 0] = -100.0

    def new_cache(self, capacity: int) -> HistoryCache:
        return HistoryCache()

    def forward(self, ids: TokenIds, cache: HistoryCache, last: int = 1) -> Logits:
        self.before_forward()
        self.forwards += 1
        rows = []
        for token in ids.tolist():
            cache.state = (cache.state * STEP + token + 1) % 2**64
            rows.append(cache.state % ROWS)
        cache.length += len(ids)
        return self._table[rows[-last:]]


def deterministic_model(tokenizer: Tokenizer, engine: DeterministicEngine) -> Model:
    """That engine behind a real tokenizer, with a chat template."""
    return Model(
        name="deterministic",
        revision="test",
        created=1,
        engine=engine,
        tokenizer=tokenizer,
        chat_template=ChatTemplate(CHAT_TEMPLATE, {}),
        eos_ids=frozenset({0}),
        sampling_defaults={},
        load_ms={"total_ms": 1.0},
    )


def read_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a checkpoint made by `tests/checkpoints.py`."""
    return Tokenizer(directory)
