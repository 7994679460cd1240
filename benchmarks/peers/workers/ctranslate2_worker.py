"""CTranslate2. Arguments: CONVERTED_DIRECTORY COMPUTE_TYPE THREADS [together]."""
# mypy: ignore-errors
# Its imports are of another environment, which the type checker does not see.

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from loop import serve, serve_together


def load_generator() -> tuple[Any, list[str]]:
    """The model, and the names of its tokens, which are what it takes."""
    import ctranslate2

    directory, precision, threads = sys.argv[1:4]
    generator = ctranslate2.Generator(
        directory, device="cpu", compute_type=precision, inter_threads=1, intra_threads=int(threads)
    )
    return generator, json.loads(Path(directory, "vocabulary.json").read_text())


def load() -> Callable[[list[int], int], Iterator[int]]:
    """Import, load, and return a greedy token generator."""
    generator, names = load_generator()

    def generate(ids: list[int], tokens: int) -> Iterator[int]:
        prompt = [names[i] for i in ids]
        steps = generator.generate_tokens(prompt, max_length=tokens, min_length=tokens, sampling_topk=1, end_token=[])
        for step in steps:
            yield step.token_id

    return generate


def load_together() -> Callable[[list[list[int]], int, Callable[[int], None]], None]:
    """Import, load, and return a function that continues many prompts as one batch."""
    generator, names = load_generator()

    def generate(prompts: list[list[int]], tokens: int, made: Callable[[int], None]) -> None:
        def on_token(step: Any) -> bool:
            made(step.batch_id)
            return False

        generator.generate_batch(
            [[names[i] for i in ids] for ids in prompts], max_length=tokens, min_length=tokens, sampling_topk=1,
            end_token=[], include_prompt_in_result=False, callback=on_token,
        )  # fmt: skip

    return generate


if "together" in sys.argv:
    serve_together(load_together)
else:
    serve(load)
