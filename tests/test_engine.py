"""The transformers engine behind our token loop against transformers' own `generate`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import model_loader
from api.model import Model
from engines.base import TokenIds
from engines.machine import usable_vcpus
from engines.transformers_engine import TransformersEngine
from generation.sampling import SamplingParams
from generation.token_loop import GenerationParams, generate
from settings import Settings
from tests.checkpoints import CONFIGS, CONTEXT, VOCAB, make_checkpoint

GREEDY = SamplingParams(temperature=0.0)


def load(directory: Path, **settings: str) -> Model:
    return model_loader.load_model(Settings(model_dir=str(directory), **settings))  # type: ignore[arg-type]


def random_prompt(length: int, seed: int = 0) -> TokenIds:
    return np.random.default_rng(seed).integers(1, 300, length)


def greedy(model: Model, prompt: TokenIds, max_tokens: int) -> list[int]:
    params = GenerationParams(max_tokens=max_tokens, eos_ids=model.eos_ids, sampling=GREEDY)
    chunks = generate(model.engine, model.tokenizer, prompt, params)
    return [token.id for chunk in chunks for token in chunk.tokens]


@pytest.mark.parametrize("architecture", sorted(CONFIGS))
def test_greedy_text_equals_generate_token_for_token(tmp_path: Path, architecture: str) -> None:
    directory = make_checkpoint(tmp_path / architecture, architecture)
    model = load(directory)
    oracle: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    for length in (1, 7, 60, 600):  # one token, beyond the sliding window, beyond one prefill chunk
        prompt = random_prompt(length, seed=length)
        expected = oracle.generate(
            torch.from_numpy(prompt)[None], do_sample=False, max_new_tokens=30, pad_token_id=0, eos_token_id=0
        )[0, length:].tolist()
        assert greedy(model, prompt, 30) == [token for token in expected if token != 0]


def test_every_position_of_the_context_can_be_used(llama: Model) -> None:
    prompt = random_prompt(CONTEXT - 5)
    params = GenerationParams(max_tokens=5, sampling=GREEDY)
    *_, last = generate(llama.engine, llama.tokenizer, prompt, params)
    assert (last.finish_reason, last.completion_tokens) == ("length", 5)


def test_logits_of_the_last_positions_equal_the_whole_forward_pass(llama: Model) -> None:
    engine = llama.engine
    assert isinstance(engine, TransformersEngine)
    ids = random_prompt(40)
    with torch.inference_mode():
        expected = engine.model(torch.from_numpy(ids)[None]).logits[0].numpy()
    cache = engine.new_cache(64)
    engine.forward(ids[:25], cache)
    np.testing.assert_allclose(engine.forward(ids[25:], cache, last=3), expected[-3:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ids", [[VOCAB], [-1], []], ids=["too large", "negative", "none"])
def test_ids_the_network_does_not_have_are_refused(llama: Model, ids: list[int]) -> None:
    with pytest.raises(ValueError, match=r"token id|ids and"):
        llama.engine.forward(np.array(ids, dtype=np.int64), llama.engine.new_cache(8))


def test_a_cache_cannot_overflow(llama: Model) -> None:
    cache = llama.engine.new_cache(4)
    with pytest.raises(ValueError, match="overflow a cache of 4"):
        llama.engine.forward(random_prompt(5), cache)


def test_a_cache_that_memory_cannot_hold_is_refused_before_it_is_filled(
    llama: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1")
    with pytest.raises(MemoryError):
        llama.engine.new_cache(CONTEXT)


def test_auto_dtype_is_the_stored_one_where_the_cpu_runs_it_well(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path / "half", dtype=torch.bfloat16)
    capabilities = torch.cpu.get_capabilities()
    runs_well = any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    assert load(directory).engine.dtype == ("bfloat16" if runs_well else "float32")
    assert load(directory, dtype="float32").engine.dtype == "float32"


@pytest.mark.parametrize(("memory", "threads"), [("512", 1), ("1769", 1), ("2600", 1), ("3008", 2), ("10240", 2)])
def test_threads_follow_the_memory_size_and_never_exceed_the_cores(
    memory: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    assert usable_vcpus({"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": memory}) == threads


def test_the_engine_computes_with_the_threads_it_was_given(llama_directory: Path) -> None:
    model_loader.load_model(Settings(model_dir=str(llama_directory), threads=1))
    assert torch.get_num_threads() == 1
