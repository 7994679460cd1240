"""Steps that share a padded batch give what each gives alone: on the CPU, whose engine pads only where a test asks."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import transformers_engine
from engines.base import PAGE_TOKENS, Step, TokenIds
from engines.pretrained import load_pretrained
from engines.transformers_engine import TransformersEngine
from tests.checkpoints import VOCAB, make_checkpoint


def engines(directory: Path) -> tuple[TransformersEngine, TransformersEngine]:
    """One that pads and one that does not, with the same network."""
    model = load_pretrained(directory, "float32", "cpu")
    return TransformersEngine(model, pads=True), TransformersEngine(model, pads=False)


@contextmanager
def counted_passes(engine: TransformersEngine) -> Iterator[list[int]]:
    """The number of sequences in each forward pass of the network."""
    batches: list[int] = []
    hook = engine.model.register_forward_pre_hook(
        lambda _, __, given: batches.append(len(given["input_ids"])), with_kwargs=True
    )
    yield batches
    hook.remove()


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen3", "mistral-sliding"])
def test_mixes_of_prompts_and_single_tokens_give_what_each_gives_alone(tmp_path: Path, architecture: str) -> None:
    padding, alone = engines(make_checkpoint(tmp_path / architecture, architecture))
    random = np.random.default_rng(0)
    caches = [(padding.new_cache(), alone.new_cache()) for _ in range(6)]
    for _ in range(25):
        chosen = random.permutation(6)[: random.integers(1, 7)]
        ids = [random.integers(1, VOCAB, random.choice([1, 1, 1, 2, 3, 5, 17])) for _ in chosen]
        lasts = [int(random.integers(0, len(row) + 1)) for row in ids]
        found, expected = (
            engine.forward([Step(row, caches[i][which], last) for i, row, last in zip(chosen, ids, lasts, strict=True)])
            for which, engine in enumerate((padding, alone))
        )
        for rows, wanted, last in zip(found, expected, lasts, strict=True):
            assert rows.shape == wanted.shape == (last, VOCAB)
            np.testing.assert_allclose(rows, wanted, rtol=1e-3, atol=1e-3)
            assert rows.argmax(axis=1).tolist() == wanted.argmax(axis=1).tolist()
        if random.random() < 0.3:
            i = random.integers(6)
            length = int(random.integers(0, caches[i][0].length + 1))
            for cache in caches[i]:
                cache.truncate(length)
        assert [own.length for own, _ in caches] == [own.length for _, own in caches]


def test_single_tokens_share_one_pass_and_prompts_of_like_length_another(tmp_path: Path) -> None:
    engine, _ = engines(make_checkpoint(tmp_path / "llama"))
    caches = [engine.new_cache() for _ in range(5)]
    with counted_passes(engine) as batches:
        engine.forward([Step(ids_of(count), cache) for count, cache in zip((9, 16, 12, 100, 120), caches, strict=True)])
        engine.forward([Step(ids_of(1), cache) for cache in caches])
    assert batches == [3, 2, 5]


def ids_of(count: int) -> TokenIds:
    return np.random.default_rng(count).integers(1, VOCAB, count)


def test_what_cannot_be_padded_runs_alone(tmp_path: Path) -> None:
    engine, _ = engines(make_checkpoint(tmp_path / "sliding", "mistral-sliding"))
    with counted_passes(engine) as batches:
        engine.forward([Step(ids_of(count), engine.new_cache()) for count in (8, 7)])
    assert batches == [1, 1]


def test_an_error_in_a_shared_pass_leaves_its_caches_as_they_were(tmp_path: Path) -> None:
    engine, _ = engines(make_checkpoint(tmp_path / "llama"))
    caches = [engine.new_cache() for _ in range(2)]
    ids = [ids_of(2 * PAGE_TOKENS), ids_of(PAGE_TOKENS)]
    expected = engine.forward([Step(row, cache) for row, cache in zip(ids, caches, strict=True)])
    for cache in caches:
        cache.truncate(10)

    def fail(*_: Any) -> None:
        raise RuntimeError("can't allocate memory")

    hook = engine.model.model.layers[-1].register_forward_hook(fail)
    rest = [Step(row[10:], cache) for row, cache in zip(ids, caches, strict=True)]
    with pytest.raises(MemoryError):
        engine.forward(rest)
    hook.remove()
    assert [cache.length for cache in caches] == [10, 10]
    for found, wanted in zip(engine.forward(rest), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("on_gpu", "pads"), [(False, False), (True, True)])
def test_a_gpu_pads_and_a_cpu_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_gpu: bool, pads: bool
) -> None:
    directory = make_checkpoint(tmp_path / "llama")
    monkeypatch.setattr("torch.cuda.is_available", lambda: on_gpu)
    monkeypatch.setattr(
        transformers_engine, "load_pretrained", lambda where, dtype, _: load_pretrained(where, dtype, "cpu")
    )
    engine = transformers_engine.load(directory, dtype="float32", device="auto", threads=1)
    with counted_passes(engine) as batches:
        engine.forward([Step(ids_of(count), engine.new_cache()) for count in (8, 7)])
    assert batches == ([2] if pads else [1, 1])
