"""llama.cpp through llama-cpp-python. Arguments: GGUF_FILE PRECISION THREADS [no_extra_buffers] [flash_attention]."""
# mypy: ignore-errors
# Its imports are of another environment, which the type checker does not see.

import sys
from collections.abc import Callable, Iterator

from loop import serve


def load() -> Callable[[list[int], int], Iterator[int]]:
    """Import, load, and return a greedy token generator."""
    import llama_cpp

    path, _, threads = sys.argv[1:4]
    extra = {"use_extra_bufts": False} if "no_extra_buffers" in sys.argv else {}
    if "flash_attention" in sys.argv:
        extra["flash_attn"] = True
    # n_batch covers the longest prompt, so that prefill is one call as in the other engines.
    llm = llama_cpp.Llama(
        path, n_ctx=2048, n_batch=2048, n_ubatch=512, n_threads=int(threads), n_threads_batch=int(threads),
        verbose=False, **extra,
    )  # fmt: skip

    def generate(ids: list[int], tokens: int) -> Iterator[int]:
        llm.reset()
        yield from llm.generate(ids, top_k=1, temp=0.0, repeat_penalty=1.0)

    return generate


serve(load)
