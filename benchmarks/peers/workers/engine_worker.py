"""This project's own engines, through its loader. Arguments: DIRECTORY DTYPE THREADS [together | drafts | plain]."""
# mypy: ignore-errors
# Its imports are of another environment, which the type checker does not see.

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from loop import serve, serve_together

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))


def load_model() -> Any:
    """The model as every entry point loads it."""
    from model_loader import load_model
    from settings import Settings

    directory, dtype, threads = sys.argv[1:4]
    given = dtype if dtype in ("float32", "bfloat16", "float16") else "auto"
    return load_model(Settings(model_dir=directory, dtype=given, threads=int(threads)))


def load() -> Callable[[list[int], int], Iterator[int]]:
    """Return a greedy token generator over the engine, which begins behind what an artifact has read of a prompt."""
    import numpy as np

    from engines.base import Step
    from generation.prefix_cache import PrefixCache

    engine = load_model().engine
    prefixes = PrefixCache(engine, most=0)

    def generate(ids: list[int], tokens: int) -> Iterator[int]:
        rest = np.array(ids, dtype=np.int64)
        cache = prefixes.find(rest[:-1], None)
        rest = rest[cache.length :]
        for _ in range(tokens):
            while len(rest):
                part, rest = rest[: engine.max_rows], rest[engine.max_rows :]
                (logits,) = engine.forward([Step(part, cache)])
            token = int(logits[-1].argmax())
            yield token
            rest = np.array([token], dtype=np.int64)

    return generate


def load_drafting(most: int) -> Callable[[list[int], int], Iterator[int]]:
    """Return a greedy token generator as the handler's: the scheduler's loop, with drafts of up to `most` tokens."""
    import numpy as np

    from generation.pace import Pace
    from generation.params import GenerationParams, SamplingParams
    from generation.scheduler import Scheduler
    from generation.sequence import Sequence

    model = load_model()

    def generate(ids: list[int], tokens: int) -> Iterator[int]:
        scheduler = Scheduler(model.engine, Pace(), 1)
        params = GenerationParams(tokens, sampling=SamplingParams(temperature=0.0), most_drafted=most)
        scheduler.add(Sequence(model.tokenizer, np.array(ids, np.int64), params))
        for outcome in scheduler.drive():
            if isinstance(outcome.result, Exception):
                raise outcome.result
            yield from (token.id for token in outcome.result.tokens)

    return generate


def load_together() -> Callable[[list[list[int]], int, Callable[[int], None]], None]:
    """Return a function that has the scheduler continue many prompts, text and all, as the server does."""
    import numpy as np

    from generation.pace import Pace
    from generation.params import GenerationParams, SamplingParams
    from generation.scheduler import Scheduler
    from generation.sequence import Sequence

    model = load_model()

    def generate(prompts: list[list[int]], tokens: int, made: Callable[[int], None]) -> None:
        scheduler = Scheduler(model.engine, Pace(), 16)
        params = GenerationParams(tokens, sampling=SamplingParams(temperature=0.0))
        numbers = {}
        for number, ids in enumerate(prompts):
            sequence = Sequence(model.tokenizer, np.array(ids, np.int64), params)
            numbers[sequence] = number
            scheduler.add(sequence)
        for outcome in scheduler.drive():
            if isinstance(outcome.result, Exception):
                raise outcome.result
            made(numbers[outcome.sequence])

    return generate


if "together" in sys.argv:
    serve_together(load_together)
elif "drafts" in sys.argv:
    serve(lambda: load_drafting(31))
elif "plain" in sys.argv:
    serve(lambda: load_drafting(0))
else:
    serve(load)
