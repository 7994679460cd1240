"""The pool of pages that KV caches are made of."""

import gc
import threading

import pytest

from engines.compiled_engine import CompiledCache
from engines.pages import SLAB_BYTES, PagePool
from tests.running_server import PATIENCE


def test_pages_of_a_cache_that_the_collector_finds_within_the_pool_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed pass leaves its caches to the collector, which may run anywhere: in the pool, too, that has its lock."""
    pool = PagePool(SLAB_BYTES, 3)
    cache = CompiledCache(pool)
    cache.extend(pool.take(1))
    cycle = [cache]
    cycle.append(cycle)  # type: ignore[arg-type]
    del cache, cycle
    map_slab = pool._map_slab

    def collecting() -> None:
        gc.collect()
        map_slab()

    monkeypatch.setattr(pool, "_map_slab", collecting)
    taken: list[int] = []
    thread = threading.Thread(target=lambda: taken.extend(pool.take(2)), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert len(taken) == 2, "the pool waits for itself"
    assert pool.used == 2
    assert len(pool.take(1)) == 1


def test_a_fork_for_which_there_is_no_memory_gives_nobody_s_pages_back(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = PagePool(SLAB_BYTES, 3)
    cache = CompiledCache(pool)
    cache.extend(pool.take(2))
    cache.length = 20
    free = pool.free

    def share(pages: list[int]) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(pool, "share", share)
        with pytest.raises(MemoryError):
            cache.fork()
    gc.collect()
    assert pool.free == free
    other = cache.fork()
    assert all(pool.shared(page) for page in cache.pages)
    other.close()
    assert pool.free == free
