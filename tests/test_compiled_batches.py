"""Passes of many sequences over the compiled engine: each sequence's logits are the bits that it has alone."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import compiled_engine, cpu_levels
from engines.base import PAGE_TOKENS, Logits, OutOfPagesError, Step, TokenIds
from engines.compiled_engine import CompiledCache, CompiledEngine
from settings import ROOT
from tests.checkpoints import CONTEXT, VOCAB, make_checkpoint

LEVELS = tuple(level for level in cpu_levels.levels_here() if cpu_levels.LEVEL_FLAGS[level] <= cpu_levels.cpu_flags())
MIXES = 150


@pytest.fixture(scope="session")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose sliding windows and odd head sizes leave no part of attention out."""
    sizes: dict[str, Any] = {"hidden_size": 72, "head_dim": 20, "sliding_window": 150, "num_attention_heads": 6}
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "gemma", "gemma3-sliding", **sizes)


@pytest.fixture(scope="module", params=["none", "int8"])
def directory(request: pytest.FixtureRequest, gemma: Path, compiled: Callable[..., Path]) -> Path:
    """Its artifact at each precision whose sums do not depend on the mix."""
    return compiled(gemma, request.param, LEVELS)


@pytest.fixture(scope="module", params=[(level, threads) for level in LEVELS for threads in (1, 2)], ids=str)
def engine(request: pytest.FixtureRequest, directory: Path) -> CompiledEngine:
    level, threads = request.param
    return compiled_engine.load(directory, threads=threads, level=level)


def random_ids(length: int, seed: int = 0) -> TokenIds:
    return np.random.default_rng(seed).integers(1, VOCAB, length)


def one_by_one(engine: CompiledEngine, ids: TokenIds, past: TokenIds | None = None) -> Logits:
    """Logits `[S, V]` after each of `ids`, each read in a pass of its own, after `past`, read in passes of 512."""
    cache = engine.new_cache()
    for begin in range(0, 0 if past is None else len(past), 512):
        assert past is not None
        engine.forward([Step(past[begin : begin + 512], cache)])
    return np.concatenate([engine.forward([Step(ids[i : i + 1], cache)])[0] for i in range(len(ids))])


def test_logits_are_the_same_bits_in_any_mix_of_sequences_and_cuts(engine: CompiledEngine) -> None:
    random = np.random.default_rng(0)
    texts = [random_ids(int(n), seed=int(n)) for n in (1, 2, 15, 16, 17, 60, 127, 128, 129, 131, 260, 300, 400, 600)]
    alone = [one_by_one(engine, ids) for ids in texts]
    for _ in range(MIXES // len(LEVELS) // 2):
        chosen = random.choice(len(texts), int(random.integers(1, 8)), replace=False)
        caches = {int(i): engine.new_cache() for i in chosen}
        while caches:
            steps, wanted, room = [], [], engine.max_rows
            for i, cache in caches.items():
                left = len(texts[i]) - cache.length
                count = min(left, room, int(random.choice([1, 1, 1, 2, 4, 5, 16, 30, 200, 512])))
                if count:
                    last = int(random.integers(0, count + 1))
                    steps.append(Step(texts[i][cache.length : cache.length + count], cache, last))
                    wanted.append(alone[i][cache.length + count - last : cache.length + count])
                    room -= count
            for found, expected in zip(engine.forward(steps), wanted, strict=True):
                np.testing.assert_array_equal(found, expected)
            caches = {i: cache for i, cache in caches.items() if cache.length < len(texts[i])}


@pytest.mark.parametrize("length", [1, 15, 16, 17, 40, 200])
def test_forks_go_on_as_if_each_had_read_everything(engine: CompiledEngine, length: int) -> None:
    prompt, endings = random_ids(length), [random_ids(30, seed=i) for i in range(4)]
    cache = engine.new_cache()
    engine.forward([Step(prompt, cache)])
    caches = [cache, *(cache.fork() for _ in endings[1:])]
    used = engine.total_tokens - engine.free_tokens
    found: list[list[Logits]] = [[] for _ in endings]
    for i in range(30):
        rows = engine.forward([Step(ids[i : i + 1], c) for ids, c in zip(endings, caches, strict=True)])
        for of_one, row in zip(found, rows, strict=True):
            of_one.append(row)
    for ids, of_one in zip(endings, found, strict=True):
        np.testing.assert_array_equal(np.concatenate(of_one), one_by_one(engine, ids, prompt))
    pages = -(-(length + 30) // PAGE_TOKENS)
    shared = length // PAGE_TOKENS
    assert (
        engine.total_tokens - engine.free_tokens - used
        == ((pages - shared) * 4 + shared) * PAGE_TOKENS - -(-length // PAGE_TOKENS) * PAGE_TOKENS
    )
    for each in caches:
        each.close()


def test_a_cut_cache_forgets_and_the_one_it_was_forked_from_does_not(engine: CompiledEngine) -> None:
    ids, others = random_ids(100), random_ids(100, seed=1)
    cache = engine.new_cache()
    engine.forward([Step(ids, cache)])
    fork = cache.fork()
    fork.truncate(37)
    (rows,) = engine.forward([Step(others[37:60], fork, 23)])
    np.testing.assert_array_equal(rows, one_by_one(engine, np.concatenate([ids[:37], others[37:60]]))[37:])
    (rows,) = engine.forward([Step(others[:5], cache, 5)])
    np.testing.assert_array_equal(rows, one_by_one(engine, np.concatenate([ids, others[:5]]))[100:])


def test_every_page_comes_back(engine: CompiledEngine) -> None:
    free = engine.free_tokens
    caches: list[CompiledCache] = []
    for i in range(10):
        caches.append(engine.new_cache())
        engine.forward([Step(random_ids(50 + i), caches[-1])])
        caches.append(caches[-1].fork())
    assert engine.free_tokens < free
    caches[0].close()
    caches[0].close()
    assert caches[0].length == 0
    caches[3].truncate(10)
    caches.clear()
    assert engine.free_tokens == free


def small(directory: Path, pages: int) -> CompiledEngine:
    engine = compiled_engine.load(directory, threads=1)
    engine.pool.most = pages
    return engine


def test_out_of_pages_leaves_every_cache_as_it_was(directory: Path) -> None:
    engine = small(directory, 10)
    ids = random_ids(100)
    first, second = engine.new_cache(), engine.new_cache()
    engine.forward([Step(ids[:80], first), Step(ids[:30], second)])
    with pytest.raises(OutOfPagesError, match="all 10 pages of the KV cache are in use"):
        engine.forward([Step(ids[80:81], first), Step(ids[30:80], second)])
    assert (first.length, second.length) == (80, 30)
    rows = engine.forward([Step(ids[80:81], first), Step(ids[30:31], second)])
    for found, at in zip(rows, (80, 30), strict=True):
        np.testing.assert_array_equal(found, one_by_one(engine_of(directory), ids[at : at + 1], ids[:at]))
    first.close()
    engine.forward([Step(ids[31:80], second)])


def engine_of(directory: Path) -> CompiledEngine:
    return compiled_engine.load(directory, threads=1)


def test_pages_that_the_function_has_no_memory_for_are_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(directory)
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1")
    with pytest.raises(OutOfPagesError, match="more than there are"):
        engine.forward([Step(random_ids(5), engine.new_cache())])


def test_the_page_budget_is_what_weights_and_scratch_memory_leave(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "2000")
    assert 0 < engine_of(directory).total_tokens * engine_of(directory).pool.page_bytes / PAGE_TOKENS < 2000 * 2**20


def test_a_batch_takes_a_cache_once(engine: CompiledEngine) -> None:
    cache = engine.new_cache()
    with pytest.raises(ValueError, match="only once"):
        engine.forward([Step(random_ids(1), cache), Step(random_ids(1), cache)])


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from engines import compiled_engine
from engines.base import Step

engine = compiled_engine.load(Path(sys.argv[1]), threads=2)
ids = np.random.default_rng(0).integers(1, engine.vocab_size, 500)
cache = engine.new_cache()
expected = engine.forward([Step(ids[:5], cache)])[0]
pages = int(Path("/proc/self/statm").read_text().split()[0])
for spare in range(0, 3_000_000, 150_000):
    limit = pages * resource.getpagesize() + spare
    resource.setrlimit(resource.RLIMIT_AS, (limit, -1))
    try:
        engine.forward([Step(ids, engine.new_cache(), 500)])
        print("answered")
    except MemoryError:
        print("memory")
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    again = engine.new_cache()
    assert (engine.forward([Step(ids[:5], again)])[0] == expected).all()
"""


def test_memory_that_runs_out_inside_a_pass_is_a_memory_error_and_the_next_pass_is_right(directory: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(directory)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "memory" in done.stdout.split()


def test_the_context_bounds_a_cache(engine: CompiledEngine) -> None:
    cache = engine.new_cache()
    engine.forward([Step(random_ids(500), cache)])
    with pytest.raises(ValueError, match="do not fit the context"):
        engine.forward([Step(random_ids(CONTEXT - 499), cache)])
