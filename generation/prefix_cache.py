"""Prompts that are already read: full pages that stay after their sequence has ended, found again by their tokens.

A page is found by the tokens it holds and by the page before it, which stands for everything before: a radix tree with
a page per node, kept as one dictionary. The tokens themselves are in the key: no text is ever taken for another.

Shape learned from vLLM's hashed blocks and SGLang's radix cache.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable

from engines.base import PAGE_TOKENS, Engine, KVCache, TokenIds

PAGE_BYTES = 8 * PAGE_TOKENS
"""Of the ids of one page."""
NO_PAGE = 0
"""Stands for the page before the first one; no page has this address."""

Scope = Hashable
"""Who may find a page: sequences of an equal scope, and nobody else."""
_Key = tuple[int, Scope, bytes]
"""The page before, the scope, the page's own ids."""


class PrefixCache:
    """The pages that are kept of one engine. Thread-safe; every scheduler of the engine may use it.

    Kept pages give way: whoever runs has them let go with `evict`.
    """

    def __init__(self, engine: Engine, most: int) -> None:
        """Keep at most `most` pages, the least recently used go first. `engine.prefixes` are pinned.

        An engine without shared pages has nothing found and nothing kept.
        """
        self._engine = engine
        self._most = most
        # The least recently used first. Using a page uses all before it, which count as used after it: so the first
        # entry has none behind it, and the page that a key names is there for as long as the key is.
        self._kept: OrderedDict[_Key, int] = OrderedDict()
        self._pinned: dict[tuple[int, bytes], int] = {}
        self._lock = threading.Lock()
        for ids, cache in engine.prefixes:
            self.pin(ids, cache)

    @property
    def keeps(self) -> bool:
        """Whether anything that is read now will be found."""
        return self._most > 0 and self._engine.pool is not None

    @property
    def pages(self) -> int:
        """How many pages are kept, those that running sequences use, too, included."""
        return len(self._kept)

    @property
    def evictable(self) -> int:
        """How many of them `evict` would free: no sequence uses them."""
        pool = self._engine.pool
        return 0 if pool is None else pool.idle

    def count(self, ids: TokenIds, scope: Scope) -> int:
        """How many of `ids [S]`, from the first one on, `find` would find now."""
        with self._lock:
            return PAGE_TOKENS * len(self._walk(ids, scope))

    def find(self, ids: TokenIds, scope: Scope) -> KVCache:
        """A cache that holds as much of the beginning of `ids [S]` as is kept, in whole pages, or nothing."""
        with self._lock:
            path = self._walk(ids, scope)
            self._touch(path)
            return self._engine.new_cache([page for _, page in path]) if path else self._engine.new_cache()

    def keep(self, ids: TokenIds, cache: KVCache, scope: Scope) -> None:
        """Keep the full pages of `cache`, which holds the first `cache.length` of `ids`, for others of `scope`."""
        pool = self._engine.pool
        if pool is None or self._most == 0:
            return
        with self._lock:
            path = self._walk(ids[: cache.length], scope)
            new = cache.pages[len(path) : cache.length // PAGE_TOKENS]
            data = ids.tobytes()
            for number, page in enumerate(new, len(path)):
                before = path[-1][1] if path else NO_PAGE
                path.append(((before, scope, _page_of(data, number)), page))
            pool.keep(new)  # last: an error before leaves nothing held that nobody finds
            self._touch(path)
            while len(self._kept) > self._most:
                self._forget_oldest()

    def pin(self, ids: TokenIds, cache: KVCache) -> None:
        """Have the full pages of `cache`, which holds exactly `ids`, found in every scope, for ever."""
        pool = self._engine.pool
        if pool is None:
            raise ValueError(f"the {self._engine.name} engine has no pages to pin")
        with self._lock:
            data, before = ids.tobytes(), NO_PAGE
            for number, page in enumerate(cache.pages[: cache.length // PAGE_TOKENS]):
                key = (before, _page_of(data, number))
                if key not in self._pinned:
                    pool.share([page])
                    self._pinned[key] = page
                before = self._pinned[key]

    def evict(self, count: int) -> int:
        """Let go of the least recently used until `count` more pages are free. How many are; nothing goes for none."""
        pool = self._engine.pool
        if pool is None or not self.evictable:
            return 0
        freed = 0
        with self._lock:
            while freed < count and self._kept:
                freed += self._forget_oldest()
        return freed

    def _walk(self, ids: TokenIds, scope: Scope) -> list[tuple[_Key, int]]:
        """The pages that hold the beginning of `ids`, with their keys."""
        data, before = ids.tobytes(), NO_PAGE
        path: list[tuple[_Key, int]] = []
        for number in range(len(ids) // PAGE_TOKENS):
            key = (before, scope, _page_of(data, number))
            page = self._pinned.get((before, key[2])) or self._kept.get(key)
            if page is None:
                break
            path.append((key, page))
            before = page
        return path

    def _touch(self, path: list[tuple[_Key, int]]) -> None:
        """Make the kept pages of a path the most recently used, the first of them last."""
        for key, page in reversed(path):
            if (key[0], key[2]) in self._pinned:
                break  # and so are all before it
            self._kept[key] = page
            self._kept.move_to_end(key)

    def _forget_oldest(self) -> bool:
        """Whether its page is free now."""
        pool = self._engine.pool
        assert pool is not None
        _, page = self._kept.popitem(last=False)
        return pool.forget(page)


def _page_of(data: bytes, number: int) -> bytes:
    """The ids of one page, of all ids."""
    return data[number * PAGE_BYTES : (number + 1) * PAGE_BYTES]
