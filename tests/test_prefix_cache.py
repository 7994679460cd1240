"""What was read once stays read: found by its tokens alone, by its own scope, for as long as there is room."""

import math
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest

from engines import compiled_engine
from engines.base import PAGE_TOKENS, KVCache, Step, TokenIds, token_ids
from engines.compiled_engine import CompiledEngine
from generation import prefix_cache
from generation.deadline import Deadline
from generation.pace import Pace
from generation.params import GenerationParams, SamplingParams
from generation.prefix_cache import PrefixCache
from generation.scheduler import Scheduler
from generation.sequence import Piece
from generation.sequence import Sequence as TokenSequence
from generation.tokenizer import Tokenizer
from tests.deterministic_engine import read_tokenizer
from tests.generating import generate

MIXES = 120


@pytest.fixture(scope="module")
def tokenizer(llama_directory: Path) -> Tokenizer:
    return read_tokenizer(llama_directory)


@pytest.fixture(scope="module", params=["none", "int8"])
def directory(request: pytest.FixtureRequest, llama_directory: Path, compiled: Callable[..., Path]) -> Path:
    """An artifact. int4 is left out: docs/compiled-engine.md says when its texts differ."""
    return compiled(llama_directory, request.param)


@pytest.fixture
def engine(llama_artifact: Path) -> CompiledEngine:
    """An engine whose pages nobody else uses."""
    return compiled_engine.load(llama_artifact, threads=1)


def ids_of(length: int, seed: int = 0) -> TokenIds:
    return np.random.default_rng(seed).integers(1, 300, length)


def read(engine: CompiledEngine, ids: TokenIds) -> KVCache:
    """A cache that holds `ids`."""
    cache = engine.new_cache()
    for begin in range(0, len(ids), 512):
        engine.forward([Step(ids[begin : begin + 512], cache)])
    return cache


def kept(engine: CompiledEngine, prefixes: PrefixCache, ids: TokenIds, scope: object = None) -> None:
    """Have `ids` read and kept."""
    cache = read(engine, ids)
    prefixes.keep(ids, cache, scope)
    cache.close()


@pytest.mark.parametrize("length", [1, 15, 16, 17, 31, 32, 33, 200])
def test_whole_pages_are_found_and_go_on_as_if_read(engine: CompiledEngine, length: int) -> None:
    prefixes = PrefixCache(engine, 100)
    ids, others = ids_of(length), ids_of(40, seed=1)
    kept(engine, prefixes, ids)
    wanted = np.concatenate([ids, others])
    cache = prefixes.find(wanted, None)
    assert cache.length == prefixes.count(wanted, None) == length // PAGE_TOKENS * PAGE_TOKENS
    (rows,) = engine.forward([Step(wanted[cache.length :], cache, 40)])
    (expected,) = engine.forward([Step(wanted, engine.new_cache(), 40)])
    np.testing.assert_array_equal(rows, expected)


def test_a_beginning_is_found_as_far_as_it_is_the_same(engine: CompiledEngine) -> None:
    prefixes, ids = PrefixCache(engine, 100), ids_of(160)
    kept(engine, prefixes, ids)
    for differing in range(160):
        other = token_ids(ids.tolist())
        other[differing] += 1
        assert prefixes.count(other, None) == differing // PAGE_TOKENS * PAGE_TOKENS
    assert prefixes.count(ids[16:], None) == 0  # the same tokens at another place are other keys and values


def test_another_scope_finds_nothing_and_pinned_pages_are_everybody_s(engine: CompiledEngine) -> None:
    prefixes, ids, pinned = PrefixCache(engine, 100), ids_of(100), ids_of(40, seed=1)
    kept(engine, prefixes, ids, "one")
    assert [prefixes.count(ids, scope) for scope in ("one", "other", None)] == [96, 0, 0]
    prefixes.pin(pinned, read(engine, pinned))
    assert [prefixes.count(pinned, scope) for scope in ("one", "other", None)] == [32, 32, 32]
    behind = np.concatenate([pinned[:32], ids])
    kept(engine, prefixes, behind, "one")
    assert [prefixes.count(behind, scope) for scope in ("one", "other")] == [128, 32]


def test_prefixes_of_the_engine_are_pinned_and_never_evicted(engine: CompiledEngine) -> None:
    ids = ids_of(100)
    engine.prefixes = [(ids, read(engine, ids))]
    prefixes = PrefixCache(engine, 0)
    assert prefixes.evict(1000) == 0
    kept(engine, prefixes, ids_of(100, seed=1))
    assert (prefixes.count(ids, "anyone"), prefixes.pages) == (96, 0)


def test_the_least_recently_used_go_first_their_ends_before_their_beginnings(engine: CompiledEngine) -> None:
    prefixes, beginning = PrefixCache(engine, 8), ids_of(64)
    first, second, third = (np.concatenate([beginning, ids_of(32, seed)]) for seed in (1, 2, 3))
    kept(engine, prefixes, first)
    kept(engine, prefixes, second)
    assert (prefixes.pages, prefixes.count(first, None), prefixes.count(second, None)) == (8, 96, 96)
    prefixes.find(first, None).close()
    kept(engine, prefixes, third)
    assert [prefixes.count(ids, None) for ids in (first, second, third)] == [96, 64, 96]
    kept(engine, prefixes, ids_of(200, seed=4))
    assert prefixes.count(ids_of(200, seed=4), None) == 128  # of what is too long for all pages, the beginning
    assert [prefixes.count(ids, None) for ids in (first, second, third)] == [0, 0, 0]


def test_a_text_that_was_read_twice_is_kept_once(engine: CompiledEngine) -> None:
    prefixes, ids = PrefixCache(engine, 100), ids_of(160)
    free = engine.free_tokens
    caches = [read(engine, ids), read(engine, ids)]
    for cache in caches:
        prefixes.keep(ids, cache, None)
    assert prefixes.evictable == 0
    for cache in caches:
        cache.close()
    assert (prefixes.pages, prefixes.evictable, free - engine.free_tokens) == (10, 10, 160)


def test_keeping_that_runs_out_of_memory_loses_no_page(engine: CompiledEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    prefixes, ids, free = PrefixCache(engine, 100), ids_of(64), engine.free_tokens

    def page_of(data: bytes, number: int) -> bytes:
        if number == 2:
            raise MemoryError
        return bytes([number])

    cache = read(engine, ids)
    with monkeypatch.context() as patch:
        patch.setattr(prefix_cache, "_page_of", page_of)
        with pytest.raises(MemoryError):
            prefixes.keep(ids, cache, None)
    cache.close()
    assert (prefixes.pages, engine.free_tokens) == (0, free)
    kept(engine, prefixes, ids)
    assert (prefixes.count(ids, None), prefixes.evictable) == (64, 4)


def test_evicting_counts_only_pages_that_nobody_uses(engine: CompiledEngine) -> None:
    prefixes, ids = PrefixCache(engine, 100), ids_of(64)
    free = engine.free_tokens
    kept(engine, prefixes, ids)
    cache = prefixes.find(ids, None)
    assert (prefixes.evictable, prefixes.evict(4), prefixes.pages) == (0, 0, 4)
    cache.truncate(20)
    assert (prefixes.evictable, prefixes.evict(4), prefixes.pages) == (2, 2, 0)
    (rows,) = engine.forward([Step(ids[20:], cache)])
    np.testing.assert_array_equal(rows, engine.forward([Step(ids, engine.new_cache())])[0])
    cache.close()
    assert engine.free_tokens == free


@pytest.mark.parametrize("part", range(2))
def test_what_was_kept_changes_no_answer(directory: Path, tokenizer: Tokenizer, part: int) -> None:
    """Random beginnings, lengths, scopes, budgets, evictions, cancellations, failures: each says what it says alone."""
    alone = compiled_engine.load(directory, threads=1)
    expected: dict[tuple[int, ...], list[Piece]] = {}
    beginnings = [ids_of(400, seed) for seed in range(3)]
    found = 0
    for mix in range(part, MIXES, 2):
        random = Random(mix)
        engine = compiled_engine.load(directory, threads=1)
        engine.pool.most = random.choice([40, 70, 2000])
        prefixes = PrefixCache(engine, random.choice([5, 30, 60, 2000]))
        scheduler = Scheduler(engine, Pace(), random.choice([1, 2, 5]), prefixes)
        wanted: dict[TokenSequence, tuple[int, ...]] = {}
        pieces: dict[TokenSequence, list[Piece]] = {}
        cancelled: set[TokenSequence] = set()
        to_come = random.randint(4, 14)
        while to_come or scheduler.busy:
            if to_come and random.random() < 0.3:
                to_come -= 1
                which, common = random.randint(0, 2), random.choice([0, 5, 16, 31, 32, 100, 160, 300])
                own, made = random.choice([1, 2, 15, 16, 17, 50]), random.choice([1, 2, 18, 40])
                described = random.random() < 0.1
                text = (which, common, own, made, int(described))
                prompt = np.concatenate([beginnings[which][:common], ids_of(own, seed=common)])
                params = GenerationParams(
                    max_tokens=made, logprobs=2, prompt_logprobs=described, sampling=SamplingParams(seed=which)
                )
                if text not in expected:
                    expected[text] = list(generate(alone, tokenizer, prompt, params))
                sequence = TokenSequence(tokenizer, prompt, params, Deadline(math.inf), scope=random.randint(0, 1))
                wanted[sequence], pieces[sequence] = text, []
                scheduler.add(sequence)
            if wanted and random.random() < 0.03:
                cancelled.add(random.choice(list(wanted)))
                for sequence in cancelled:
                    scheduler.cancel(sequence)
            for outcome in scheduler.step():
                assert isinstance(outcome.result, Piece)
                pieces[outcome.sequence].append(outcome.result)
        for sequence, key in wanted.items():
            if sequence in cancelled:
                assert pieces[sequence] == expected[key][: len(pieces[sequence])]
            else:
                assert pieces[sequence] == expected[key], f"mix {mix}"
            found += sequence.cached_tokens
        prefixes.evict(10_000)
        assert engine.free_tokens == engine.total_tokens, f"mix {mix} loses pages"
    assert found > 1000


def running(engine: CompiledEngine, tokenizer: Tokenizer, prefixes: PrefixCache) -> tuple[Scheduler, TokenSequence]:
    """A scheduler, and a sequence in it that has read 100 tokens and goes on for long."""
    scheduler = Scheduler(engine, Pace(), 4, prefixes)
    sequence = TokenSequence(tokenizer, ids_of(100), GenerationParams(max_tokens=60))
    scheduler.add(sequence)
    scheduler.step()
    assert sequence.unread == 1
    return scheduler, sequence


def test_what_a_sequence_has_read_is_found_while_it_goes_on(engine: CompiledEngine, tokenizer: Tokenizer) -> None:
    scheduler, first = running(engine, tokenizer, PrefixCache(engine, 100))
    second = TokenSequence(tokenizer, ids_of(100), GenerationParams(max_tokens=2))
    scheduler.add(second)
    scheduler.step()
    assert (second.cached_tokens, first.finish_reason) == (96, None)


def test_nobody_waits_for_pages_that_are_only_kept(engine: CompiledEngine, tokenizer: Tokenizer) -> None:
    engine.pool.most = 30
    prefixes = PrefixCache(engine, 100)
    kept(engine, prefixes, ids_of(320, seed=1))
    scheduler, first = running(engine, tokenizer, prefixes)
    second = TokenSequence(tokenizer, ids_of(200, seed=2), GenerationParams(max_tokens=2))
    scheduler.add(second)
    scheduler.step()
    assert second.completion_tokens == 0
    assert second.begun_at is not None
    assert first.completion_tokens == 2
