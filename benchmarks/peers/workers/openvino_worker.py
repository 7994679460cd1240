"""OpenVINO, and with a word of the first four or `keep_prompt` its GenAI package's continuous batching.

Arguments: DIRECTORY PRECISION THREADS [together | shaped | drafts | plain] [f32] [keep_prompt].
"""
# mypy: ignore-errors
# Its imports are of another environment, which the type checker does not see.

import sys
from collections.abc import Callable, Iterator

from loop import serve, serve_together


def properties() -> dict[str, object]:
    """For the CPU: so many threads, and `f32` for products in single precision where it would take another."""
    wanted = {"INFERENCE_NUM_THREADS": int(sys.argv[3]), "PERFORMANCE_HINT": "LATENCY"}
    return {**wanted, "INFERENCE_PRECISION_HINT": "f32"} if "f32" in sys.argv else wanted


def load() -> Callable[[list[int], int], Iterator[int]]:
    """Import, load, and return a greedy token generator."""
    import numpy as np
    import openvino

    model = openvino.Core().compile_model(f"{sys.argv[1]}/openvino_model.xml", "CPU", properties())
    request = model.create_infer_request()
    inputs = {name for each in model.inputs for name in each.get_names()}

    def generate(ids: list[int], tokens: int) -> Iterator[int]:
        request.reset_state()
        length = 0
        for _ in range(tokens):
            length += len(ids)
            given = {
                "input_ids": np.array([ids], np.int64),
                "attention_mask": np.ones((1, length), np.int64),
                "position_ids": np.arange(length - len(ids), length, dtype=np.int64)[None],
                "beam_idx": np.zeros(1, np.int32),
            }
            request.infer({name: value for name, value in given.items() if name in inputs})
            ids = [int(request.get_tensor("logits").data[0, -1].argmax())]
            yield ids[0]

    return generate


def batching(
    *, keep_prompts: bool = False, drafts: bool = False
) -> Callable[[list[list[int]], int], Iterator[tuple[int, int]]]:
    """Import, load, and return a function that continues many prompts: the place of each one and its next token.

    With `drafts` it looks up drafts in the prompt, of the lengths in OpenVINO's own example.
    """
    import numpy as np
    import openvino
    import openvino_genai as genai

    settings = genai.SchedulerConfig()
    settings.cache_size = 2  # GB
    settings.max_num_seqs = 16
    settings.max_num_batched_tokens = 2048
    settings.enable_prefix_caching = keep_prompts
    lookup = {"prompt_lookup": True} if drafts else {}
    pipeline = genai.ContinuousBatchingPipeline(sys.argv[1], settings, "CPU", {**properties(), **lookup})

    def generate(prompts: list[list[int]], tokens: int, schema: str | None = None) -> Iterator[tuple[int, int]]:
        wanted = genai.GenerationConfig(max_new_tokens=tokens, do_sample=False, ignore_eos=schema is None)
        if drafts:
            wanted.num_assistant_tokens, wanted.max_ngram_size = 5, 3
        if schema is not None:
            wanted.structured_output_config = genai.StructuredOutputConfig(json_schema=schema)
        handles = [
            pipeline.add_request(i, openvino.Tensor(np.array([ids], np.int64)), wanted) for i, ids in enumerate(prompts)
        ]
        while pipeline.has_non_finished_requests():
            pipeline.step()
            for i, handle in enumerate(handles):
                while handle.can_read():
                    for output in handle.read().values():
                        for token in output.generated_ids:
                            yield i, token

    return generate


def load_together() -> Callable[[list[list[int]], int, Callable[[int], None]], None]:
    """What `serve_together` takes, with nothing kept from one request to the next."""
    generate = batching()

    def report(prompts: list[list[int]], tokens: int, made: Callable[[int], None]) -> None:
        for i, _ in generate(prompts, tokens):
            made(i)

    return report


def load_one(**how: bool) -> Callable[[list[int], int], Iterator[int]]:
    """What `serve` takes; `how` is given to `batching`."""
    generate = batching(**how)
    return lambda ids, tokens: (token for _, token in generate([ids], tokens))


def load_shaped() -> Callable[[list[int], int, str | None], Iterator[int]]:
    """What `serve` takes where requests have schemas."""
    generate = batching()
    return lambda ids, tokens, schema: (token for _, token in generate([ids], tokens, schema))


if "together" in sys.argv:
    serve_together(load_together)
elif "shaped" in sys.argv:
    serve(load_shaped)
elif {"keep_prompt", "drafts", "plain"} & set(sys.argv):
    serve(lambda: load_one(keep_prompts="keep_prompt" in sys.argv, drafts="drafts" in sys.argv))
else:
    serve(load)
