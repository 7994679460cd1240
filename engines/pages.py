"""The memory that KV caches are made of: pages of one size, counted, taken from the system a slab at a time.

A page belongs to one cache or is shared by several; it goes back when the last of them gives it up. Pages never move.
Pages in a mapped file can be adopted: caches share them like any other, but they are only ever read.
"""

import ctypes
import mmap
import threading
from collections import Counter, deque

from engines.base import OutOfPagesError
from engines.machine import available_memory
from engines.memory import address_of

SLAB_BYTES = 8 << 20
"""What is asked of the system at once: large enough for huge pages, small enough for a small function's memory."""


class PagePool:
    """At most `most` pages of `page_bytes` each. Thread-safe."""

    def __init__(self, page_bytes: int, most: int) -> None:
        self.page_bytes = page_bytes
        self.most = most
        self._free: list[int] = []
        self._shares: Counter[int] = Counter()
        self._kept: set[int] = set()
        self.idle = 0
        """Of the kept pages those that nobody else holds."""
        self._slabs: list[mmap.mmap] = []
        self._mapped = 0  # pages
        self._adopted: list[mmap.mmap] = []
        self._adopted_pages = 0
        self._dropped: deque[list[int]] = deque()
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Pages of the budget that some cache holds."""
        self.give([])  # with what finalizers have dropped
        return len(self._shares) - self._adopted_pages

    @property
    def free(self) -> int:
        """Pages that can still be taken, if the system keeps its promise."""
        return self.most - self.used

    def take(self, count: int) -> list[int]:
        """The addresses of `count` pages, whose contents are anything. OutOfPagesError takes none."""
        with self._lock:
            self._give_dropped()
            while len(self._free) < count:
                self._map_slab()
            taken = [self._free.pop() for _ in range(count)]
            self._shares.update(taken)
            return taken

    def adopt(self, mapping: mmap.mmap, offset: int) -> list[int]:
        """The addresses of the pages in `mapping` from byte `offset` on, which stays mapped.

        They do not count against the budget. The pool itself shares them with every cache: so they are never given back
        to be taken, and a cache that would append to one copies it.
        """
        count = (len(mapping) - offset) // self.page_bytes
        begin = address_of(mapping) + offset
        pages = [begin + i * self.page_bytes for i in range(count)]
        with self._lock:
            self._adopted.append(mapping)
            self._adopted_pages += count
            self._shares.update(pages)
        return pages

    def share(self, pages: list[int]) -> None:
        """One more cache holds each of `pages`."""
        with self._lock:
            self.idle -= sum(self._shares[page] == 1 for page in self._kept.intersection(pages))
            self._shares.update(pages)

    def shared(self, page: int) -> bool:
        """Whether more than one cache holds `page`."""
        return self._shares[page] > 1

    def give(self, pages: list[int]) -> None:
        """One cache less holds each of `pages`."""
        with self._lock:
            self._give(pages)
            self._give_dropped()

    def drop(self, pages: list[int]) -> None:
        """`give` for a finalizer, which may run while its own thread holds the lock: the next call gives them back."""
        if pages:
            self._dropped.append(pages)

    def keep(self, pages: list[int]) -> None:
        """Hold each of `pages`, which some cache holds and which are not kept yet, until `forget`."""
        with self._lock:
            self._shares.update(pages)
            self._kept.update(pages)

    def forget(self, page: int) -> bool:
        """Hold a kept page no longer. Whether it is free now."""
        with self._lock:
            free = self._shares[page] == 1
            self._kept.remove(page)
            self.idle -= free
        self.give([page])
        return free

    def _give(self, pages: list[int]) -> None:
        for page in pages:
            if self._shares[page] == 1:
                del self._shares[page]
                self._free.append(page)
            else:
                self._shares[page] -= 1
                self.idle += self._shares[page] == 1 and page in self._kept

    def _give_dropped(self) -> None:
        while self._dropped:
            self._give(self._dropped.popleft())

    def _map_slab(self) -> None:
        count = min(max(1, SLAB_BYTES // self.page_bytes), self.most - self._mapped)
        if count <= 0:
            raise OutOfPagesError(f"all {self.most} pages of the KV cache are in use")
        size = count * self.page_bytes
        # The kernel promises memory it does not have, and ends the whole process when the promise is called in.
        if size > available_memory():
            raise OutOfPagesError(f"{size} bytes for pages of the KV cache are more than there are")
        try:
            # Private: to the kernel shared anonymous pages are of a file, and `engines.machine` leaves files out.
            slab = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError) as error:
            raise OutOfPagesError(f"no memory for {count} pages of the KV cache") from error
        self._slabs.append(slab)
        self._mapped += count
        address = ctypes.addressof(ctypes.c_char.from_buffer(slab))
        self._free.extend(address + i * self.page_bytes for i in reversed(range(count)))
