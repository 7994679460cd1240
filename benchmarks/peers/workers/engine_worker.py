"""This project's own engines, through its loader. Arguments: DIRECTORY DTYPE THREADS. Runs from the repository root."""
# mypy: ignore-errors
# Its imports are of another environment, which the type checker does not see.

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from loop import serve

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))


def load() -> Callable[[list[int], int], Iterator[int]]:
    """Load through `model_loader` and return a greedy token generator over the engine."""
    import numpy as np

    from engines.base import Step
    from model_loader import load_model
    from settings import Settings

    directory, dtype, threads = sys.argv[1:4]
    given = dtype if dtype in ("float32", "bfloat16", "float16") else "auto"
    engine = load_model(Settings(model_dir=directory, dtype=given, threads=int(threads))).engine

    def generate(ids: list[int], tokens: int) -> Iterator[int]:
        cache = engine.new_cache()
        rest = np.array(ids, dtype=np.int64)
        for _ in range(tokens):
            while len(rest):
                part, rest = rest[: engine.max_rows], rest[engine.max_rows :]
                (logits,) = engine.forward([Step(part, cache)])
            token = int(logits[-1].argmax())
            yield token
            rest = np.array([token], dtype=np.int64)

    return generate


serve(load)
