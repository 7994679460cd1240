"""CTranslate2. Arguments: CONVERTED_DIRECTORY COMPUTE_TYPE THREADS."""
# mypy: ignore-errors
# Its imports are of another environment, which the type checker does not see.

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from loop import serve


def load() -> Callable[[list[int], int], Iterator[int]]:
    """Import, load, and return a greedy token generator."""
    import ctranslate2

    directory, precision, threads = sys.argv[1:4]
    generator = ctranslate2.Generator(
        directory, device="cpu", compute_type=precision, inter_threads=1, intra_threads=int(threads)
    )
    names = json.loads(Path(directory, "vocabulary.json").read_text())

    def generate(ids: list[int], tokens: int) -> Iterator[int]:
        prompt = [names[i] for i in ids]
        steps = generator.generate_tokens(prompt, max_length=tokens, min_length=tokens, sampling_topk=1, end_token=[])
        for step in steps:
            yield step.token_id

    return generate


serve(load)
