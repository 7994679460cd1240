"""The transformers engine behind our token loop against transformers' own `generate`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import model_loader
from api.model import Model
from engines.base import Logits, OutOfPagesError, Step, TokenIds
from engines.machine import available_memory, usable_vcpus
from engines.transformers_engine import TransformersEngine
from generation.params import GenerationParams, SamplingParams
from settings import Settings
from tests.checkpoints import CONFIGS, CONTEXT, VOCAB, make_checkpoint
from tests.generating import generate

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
    cache = engine.new_cache()
    assert engine.forward([Step(ids[:25], cache, last=0)])[0].shape == (0, VOCAB)
    np.testing.assert_allclose(engine.forward([Step(ids[25:], cache, 3)])[0], expected[-3:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ids", [[VOCAB], [-1], []], ids=["too large", "negative", "none"])
def test_ids_the_network_does_not_have_are_refused(llama: Model, ids: list[int]) -> None:
    with pytest.raises(ValueError, match="token ids"):
        llama.engine.forward([Step(np.array(ids, dtype=np.int64), llama.engine.new_cache())])


def test_what_a_pass_does_not_take_is_refused_and_changes_nothing(llama: Model) -> None:
    engine, cache = llama.engine, llama.engine.new_cache()
    for start in range(0, CONTEXT - 4, engine.max_rows):
        engine.forward([Step(random_prompt(CONTEXT - 4)[start : start + engine.max_rows], cache, last=0)])
    other = engine.new_cache()
    wrong = {
        "do not fit the context": [Step(random_prompt(5), cache)],
        "one pass takes up to": [Step(random_prompt(engine.max_rows), other), Step(random_prompt(1), cache)],
        "only once": [Step(random_prompt(1), cache), Step(random_prompt(1), cache)],
        "logits can be had": [Step(random_prompt(1), cache, last=2)],
    }
    for message, steps in wrong.items():
        with pytest.raises(ValueError, match=message):
            engine.forward(steps)
    assert (cache.length, other.length) == (CONTEXT - 4, 0)


def test_a_pass_that_memory_cannot_hold_is_refused_before_it_begins(
    llama: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = llama.engine.new_cache()
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1")
    with pytest.raises(OutOfPagesError):
        llama.engine.forward([Step(random_prompt(5), cache)])
    assert (cache.length, llama.engine.free_tokens) == (0, 0)


@pytest.mark.parametrize("architecture", ["llama", "mistral-sliding", "gemma3-sliding"])
def test_a_cache_that_was_cut_or_forked_goes_on_as_if_it_had_read_nothing_else(
    tmp_path: Path, architecture: str
) -> None:
    engine = load(make_checkpoint(tmp_path / "model", architecture)).engine
    ids, other = random_prompt(90), random_prompt(40, seed=1)

    def logits(*parts: TokenIds) -> Logits:
        cache = engine.new_cache()
        return np.concatenate([engine.forward([Step(part, cache)])[0] for part in parts])

    cut = engine.new_cache()
    engine.forward([Step(ids, cut)])
    cut.truncate(70)
    forked = cut.fork()
    rows = engine.forward([Step(ids[70:], cut), Step(other, forked)])
    np.testing.assert_allclose(rows[0], logits(ids[:70], ids[70:])[1:], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(rows[1], logits(ids[:70], other)[1:], rtol=1e-4, atol=1e-4)
    cut.close()
    assert cut.length == 0
    np.testing.assert_allclose(engine.forward([Step(other, cut)])[0], logits(other), rtol=1e-4, atol=1e-4)
    assert forked.length == 110


def test_all_rows_that_are_wanted_come_when_a_cache_reads_again_what_it_could_not_cut(tmp_path: Path) -> None:
    engine = load(make_checkpoint(tmp_path / "model", "mistral-sliding")).engine
    ids = random_prompt(515)
    cut = engine.new_cache()
    engine.forward([Step(ids[:512], cut)])
    cut.truncate(510)
    (rows,) = engine.forward([Step(ids[510:], cut, 5)])
    whole = engine.new_cache()
    engine.forward([Step(ids[:510], whole)])
    (expected,) = engine.forward([Step(ids[510:], whole, 5)])
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-4)


def test_an_error_in_a_pass_leaves_its_caches_as_they_were(llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, ids = llama.engine, random_prompt(30)
    assert isinstance(engine, TransformersEngine)
    caches = [engine.new_cache(), engine.new_cache()]
    expected = engine.forward([Step(ids, caches[0]), Step(ids[:9], caches[1])])
    for cache, length in zip(caches, (20, 5), strict=True):
        cache.truncate(length)
    layers, calls = engine.model.model.layers, 0

    def fail(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("can't allocate memory")

    hook = layers[-1].register_forward_hook(fail)  # in the second step, after its first layer was written
    steps = [Step(ids[20:], caches[0]), Step(ids[5:9], caches[1])]
    with pytest.raises(MemoryError):
        engine.forward(steps)
    hook.remove()
    assert [cache.length for cache in caches] == [20, 5]
    for found, wanted in zip(engine.forward(steps), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


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


def test_the_workers_of_an_environment_share_its_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Managed Instances, where the memory size says nothing of the cores."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    alone = {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769", "AWS_LAMBDA_MAX_CONCURRENCY": "1"}
    assert [usable_vcpus({**alone, "AWS_LAMBDA_MAX_CONCURRENCY": count}) for count in ("1", "4", "16")] == [8, 2, 1]
    size = 1769 * 2**20
    four = available_memory({**alone, "AWS_LAMBDA_MAX_CONCURRENCY": "4"})
    assert usable_vcpus({**alone, "WORKERS": "4"}) == usable_vcpus(alone), "a server's workers are seldom busy at once"
    assert abs(available_memory({**alone, "WORKERS": "4"}) - four) < 2**22
    assert four <= size / 4
    assert available_memory(alone) - four >= 0.7 * size or available_memory({}) < size


def test_the_engine_computes_with_the_threads_it_was_given(llama_directory: Path) -> None:
    for threads in (2, 1):
        model_loader.load_model(Settings(model_dir=str(llama_directory), threads=threads))
        assert torch.get_num_threads() == threads
