"""transformers as most people use it: from_pretrained and the model's own cache. Arguments: DIRECTORY DTYPE THREADS."""
# mypy: ignore-errors
# Its imports are of another environment, which the type checker does not see.

import sys
from collections.abc import Callable, Iterator

from loop import serve


def load() -> Callable[[list[int], int], Iterator[int]]:
    """Import, load, and return a greedy token generator."""
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache
    from transformers.utils import logging

    logging.disable_progress_bar()
    directory, dtype, threads = sys.argv[1:4]
    torch.set_num_threads(int(threads))
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype)).eval()

    @torch.inference_mode()
    def step(ids: list[int], cache: DynamicCache) -> int:
        logits = model(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        return int(logits[0, -1].argmax())

    def generate(ids: list[int], tokens: int) -> Iterator[int]:
        cache = DynamicCache(config=model.config)
        for _ in range(tokens):
            ids = [step(ids, cache)]
            yield ids[0]

    return generate


serve(load, reload="reload" in sys.argv)
