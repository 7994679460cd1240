"""llama.cpp through llama-cpp-python.

Arguments: GGUF_FILE PRECISION THREADS [together | shaped | drafts | plain] [no_extra_buffers] [flash_attention]
[keep_prompt] [save_state=FILE | load_state=FILE]. The state is that of one sequence, as llama.cpp's server saves and
restores a slot.
"""
# mypy: ignore-errors
# Its imports are of another environment, which the type checker does not see.

import ctypes
import math
import sys
from collections.abc import Callable, Iterator

from loop import serve, serve_together


def no_texts(llm: object) -> object:
    """A bias against each token whose bytes are no text by themselves, which a network without training likes.

    llama.cpp's grammars take such bytes for the character that they would spell if they were not too long, and end the
    process later.
    """
    import llama_cpp

    def is_text(token: int) -> bool:
        try:
            llm.detokenize([token]).decode()
        except UnicodeDecodeError:
            return False
        return True

    tokens = [token for token in range(llm.n_vocab()) if not is_text(token)]
    return (llama_cpp.llama_logit_bias * len(tokens))(*((token, -math.inf) for token in tokens))


def load() -> Callable[[list[int], int], Iterator[int]]:
    """Import, load, and return a greedy token generator."""
    import llama_cpp

    path, _, threads = sys.argv[1:4]
    extra = {"use_extra_bufts": False} if "no_extra_buffers" in sys.argv else {}
    if "flash_attention" in sys.argv:
        extra["flash_attn"] = True
    if "drafts" in sys.argv:
        from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

        extra["draft_model"] = LlamaPromptLookupDecoding()
    # n_batch covers the longest prompt, so that prefill is one call as in the other engines.
    llm = llama_cpp.Llama(
        path, n_ctx=2048, n_batch=2048, n_ubatch=512, n_threads=int(threads), n_threads_batch=int(threads),
        verbose=False, **extra,
    )  # fmt: skip

    files = dict(word.split("=", 1) for word in sys.argv[4:] if "=" in word)

    def save_state(ids: list[int]) -> None:
        tokens = (llama_cpp.llama_token * len(ids))(*ids)
        llama_cpp.llama_state_seq_save_file(llm.ctx, files["save_state"].encode(), 0, tokens, len(ids))

    if "load_state" in files:
        tokens, count = (llama_cpp.llama_token * llm.n_ctx())(), ctypes.c_size_t()
        path = files["load_state"].encode()
        if not llama_cpp.llama_state_seq_load_file(llm.ctx, path, 0, tokens, len(tokens), ctypes.byref(count)):
            raise RuntimeError(f"{files['load_state']} holds no state of this model")
        llm.input_ids[: count.value], llm.n_tokens = tokens[: count.value], count.value

    biases = no_texts(llm) if "shaped" in sys.argv else ()
    sampler_of = llm._init_sampler

    def biased(**settings: object) -> object:
        sampler = llama_cpp._internals.LlamaSampler()
        bias = llama_cpp.llama_sampler_init_logit_bias(llm.n_vocab(), len(biases), biases)
        llama_cpp.llama_sampler_chain_add(sampler.sampler, bias)
        sampler.add_grammar(llm._model, settings["grammar"])
        sampler.add_greedy()
        return sampler

    def generate(ids: list[int], tokens: int, schema: str | None = None) -> Iterator[int]:
        if not {"keep_prompt", "load_state"} & {word.partition("=")[0] for word in sys.argv}:
            llm.reset()  # else what the last request, or the state, begins with is not read again
        grammar = None if schema is None else llama_cpp.LlamaGrammar.from_json_schema(schema, verbose=False)
        llm._init_sampler = sampler_of if grammar is None else biased
        for token in llm.generate(ids, top_k=1, temp=0.0, repeat_penalty=1.0, grammar=grammar):
            if grammar is not None and token == llm.token_eos():
                return
            if "save_state" in files:
                save_state(ids)
            yield token

    return generate


MOST = 16
"""Sequences at once."""


def load_together() -> Callable[[list[list[int]], int, Callable[[int], None]], None]:
    """Import, load, and return a function that continues many prompts as llama.cpp's server does: in shared batches."""
    import llama_cpp as ll
    import numpy as np

    path, _, threads = sys.argv[1:4]
    ll.llama_backend_init()
    of_model = ll.llama_model_default_params()
    of_model.use_extra_bufts = "no_extra_buffers" not in sys.argv
    model = ll.llama_model_load_from_file(path.encode(), of_model)
    of_context = ll.llama_context_default_params()
    of_context.n_ctx, of_context.n_batch, of_context.n_ubatch, of_context.n_seq_max = MOST * 1024, 2048, 512, MOST
    of_context.n_threads = of_context.n_threads_batch = int(threads)
    of_context.flash_attn_type = 1 if "flash_attention" in sys.argv else 0
    of_context.kv_unified = True
    context = ll.llama_init_from_model(model, of_context)
    width = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))
    batch = ll.llama_batch_init(2048, 0, 1)

    def decode(rows: list[tuple[int, int, int, bool]]) -> list[int]:
        """Feed (token, position, sequence, whether its logits are wanted); the likeliest tokens after those."""
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0], batch.logits[i] = sequence, wanted
        if ll.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed")
        wanted_rows = [i for i, row in enumerate(rows) if row[3]]
        logits = (np.ctypeslib.as_array(ll.llama_get_logits_ith(context, i), (width,)) for i in wanted_rows)
        return [int(row.argmax()) for row in logits]

    def generate(prompts: list[list[int]], tokens: int, made: Callable[[int], None]) -> None:
        ll.llama_memory_clear(ll.llama_get_memory(context), True)
        latest: dict[int, int] = {}
        waiting = [(i, ids) for i, ids in enumerate(prompts)]
        while waiting:
            rows, begun = [], []
            while waiting and len(rows) + len(waiting[0][1]) <= 2048:
                i, ids = waiting.pop(0)
                rows += [(token, n, i, n == len(ids) - 1) for n, token in enumerate(ids)]
                begun.append(i)
            for i, token in zip(begun, decode(rows), strict=True):
                latest[i] = token
                made(i)
        for n in range(1, tokens):
            rows = [(latest[i], len(ids) + n - 1, i, True) for i, ids in enumerate(prompts)]
            for i, token in enumerate(decode(rows)):
                latest[i] = token
                made(i)

    return generate


if "together" in sys.argv:
    serve_together(load_together)
else:
    serve(load)
