"""A small engine with the production interface, for tests of what happens around a network.

Each next token depends on every token before it, so that requests which disturbed each other would show it, and
`before_forward` lets a test decide when a forward pass happens.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from api.chat import ChatTemplate
from api.model import Model
from engines.base import Logits, Step, check_steps
from generation.constraint import Grammars
from generation.tokenizer import Tokenizer

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
ROWS = 1009
STEP = 6364136223846793005  # Knuth's multiplier for a 64-bit linear congruential generator


class HistoryCache:
    """The hash of every beginning of the history."""

    def __init__(self, states: Sequence[int] = ()) -> None:
        self.states = list(states)
        self.pages: list[int] = []

    @property
    def length(self) -> int:
        return len(self.states)

    def truncate(self, length: int) -> None:
        assert 0 <= length <= self.length
        del self.states[length:]

    def fork(self) -> "HistoryCache":
        return HistoryCache(self.states)

    def close(self) -> None:
        self.states.clear()


class DeterministicEngine:
    """Logits looked up by a hash of all tokens so far; id 0, end of sequence, is never likely."""

    name, dtype, device = "deterministic", "float32", "cpu"
    vocab_size = 320
    """That of the tokenizers in `tests/checkpoints.py`."""
    total_tokens = 1_000_000
    pool = None
    prefixes = ()

    def __init__(
        self, context_length: int = 640, before_forward: Callable[[], None] = lambda: None, max_rows: int = 512
    ) -> None:
        self.context_length = context_length
        self.max_rows = max_rows
        self.before_forward = before_forward
        self.forwards = 0
        self._table = np.random.default_rng(0).standard_normal((ROWS, self.vocab_size)).astype(np.float32) * 3
        self._table[:, 0] = -100.0

    def new_cache(self, pages: Sequence[int] = ()) -> HistoryCache:
        return HistoryCache()

    def forward(self, steps: Sequence[Step]) -> list[Logits]:
        check_steps(self, steps)
        self.before_forward()
        self.forwards += 1
        return [self._table[_read(step)] for step in steps]

    @property
    def free_tokens(self) -> int:
        return self.total_tokens


def _read(step: Step) -> list[int]:
    """Append a step's ids to its cache. The rows of the table that hold its logits."""
    states: list[int] = step.cache.states
    for token in step.ids.tolist():
        states.append(((states[-1] if states else 1) * STEP + token + 1) % 2**64)
    return [state % ROWS for state in states[len(states) - step.last :]]


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
        grammars=Grammars(tokenizer, engine.vocab_size, {0}),
        sampling_defaults={},
        load_ms={"total_ms": 1.0},
    )


def read_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a checkpoint made by `tests/checkpoints.py`."""
    return Tokenizer(directory)
