"""One sequence alone, driven to its end: what most tests of generation need."""

from collections.abc import Iterator

from engines.base import Engine, TokenIds
from generation.deadline import Deadline
from generation.pace import Pace
from generation.params import GenerationParams
from generation.scheduler import Scheduler
from generation.sequence import Piece, Sequence
from generation.tokenizer import Tokenizer


def generate(
    engine: Engine, tokenizer: Tokenizer, prompt: TokenIds, params: GenerationParams, deadline: float | None = None
) -> Iterator[Piece]:
    """The pieces of a completion of `prompt [S]`. Raises the error that ends it."""
    scheduler = Scheduler(engine, Pace(), most_running=1)
    scheduler.add(Sequence(tokenizer, prompt, params, None if deadline is None else Deadline(deadline)))
    for outcome in scheduler.drive():
        if isinstance(outcome.result, Exception):
            raise outcome.result
        yield outcome.result
