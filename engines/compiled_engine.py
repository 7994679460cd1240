"""The compiled engine: runs an artifact of `python -m compiler` without torch or transformers.

Maps the weight file read-only, so that processes share it and nothing is copied, and opens the machine code for this
CPU. Everything is checked here before it reaches native code. Knows nothing of how artifacts are made.
"""

import ctypes
import mmap
from array import array
from collections.abc import Sequence
from pathlib import Path

from engines import artifact, cpu_levels, prompts
from engines.base import PAGE_TOKENS, KVCache, Logits, Step, TokenIds, check_steps, token_ids
from engines.errors import LoadError
from engines.machine import available_memory, memory_sharers
from engines.native_library import NativeLibrary, NativeStep
from engines.native_rows import NativeRows
from engines.pages import PagePool

RESERVED_BYTES = 64_000_000
"""What the page budget leaves beside the weights: scratch memory of a pass, requests, answers."""
RESERVED_OF_WEIGHTS = 0.04
"""And of the weights' size so much more: with Qwen2.5-1.5B's widths a pass of 512 rows takes 85 MB."""

LEAST_TOKENS = 256
"""Of keys and values that must find room: with fewer a process would load, say that it is ready, and answer nobody."""


class CompiledCache:
    """The keys and values of one sequence: a table of pages, of which full ones may be shared with other caches."""

    def __init__(self, pool: PagePool) -> None:
        self._pool = pool
        self.length = 0
        self.pages: list[int] = []
        self.table = array("q")
        """The addresses of `pages`, for native code; behind them those of pages that were given back."""

    def __del__(self) -> None:
        self._pool.drop(self.pages)

    def truncate(self, length: int) -> None:
        """Forget the tokens from `length` on; whole pages go back at once."""
        if not 0 <= length <= self.length:
            raise ValueError(f"a cache of {self.length} tokens cannot be cut to {length}")
        kept = -(-length // PAGE_TOKENS)
        gone, self.pages[kept:] = self.pages[kept:], []
        self._pool.give(gone)
        self.length = length

    def fork(self) -> "CompiledCache":
        """Another cache of the same tokens, which shares all pages until one of the two appends to the last."""
        other = CompiledCache(self._pool)
        other.hold(self.pages[: -(-self.length // PAGE_TOKENS)])
        other.length = self.length
        return other

    def close(self) -> None:
        """Give all pages back; the cache is empty then."""
        self.truncate(0)

    def missing(self, count: int) -> int:
        """Most pages that appending `count` tokens takes, the copy of a shared last page included."""
        needed = -(-(self.length + count) // PAGE_TOKENS)
        return max(0, needed - len(self.pages)) + self._shares_last()

    def grow(self, count: int, spare: list[int]) -> None:
        """Make room for `count` tokens with pages from the end of `spare`, which has at least `missing(count)`."""
        if self._shares_last():
            old = self.pages.pop()
            own = spare.pop()
            ctypes.memmove(own, old, self._pool.page_bytes)
            self._pool.give([old])
            self.extend([own])
        while len(self.pages) * PAGE_TOKENS < self.length + count:
            self.extend([spare.pop()])

    def hold(self, pages: list[int]) -> None:
        """Put `pages`, which other caches hold as well, behind those that are there."""
        self._pool.share(pages)  # first: what cannot be shared must not be given back
        self.extend(pages)

    def extend(self, pages: list[int]) -> None:
        """Put `pages` behind those that are there."""
        self.table[len(self.pages) :] = array("q", pages)
        self.pages += pages

    def _shares_last(self) -> bool:
        """Whether the page that the next token goes to has tokens of this cache and of another."""
        return self.length % PAGE_TOKENS > 0 and self._pool.shared(self.pages[-1])


class CompiledEngine:
    """A mapped artifact. Implements `engines.base.Engine`."""

    name = "compiled"
    device = "cpu"

    def __init__(
        self,
        compiled: artifact.Artifact,
        level: str,
        native: NativeLibrary,
        pool: PagePool,
        prefixes: Sequence[tuple[TokenIds, list[int]]],
    ) -> None:
        """`prefixes`: ids and pages, of `pool`, of the prompts that the artifact has read."""
        self.dtype = compiled.dtype
        self.level = level
        self.vocab_size = compiled.vocab_size
        self.context_length = compiled.context_length
        self.max_rows = compiled.max_rows
        self.pool = pool
        self.prefixes: Sequence[tuple[TokenIds, KVCache]] = [(ids, self.new_cache(pages)) for ids, pages in prefixes]
        self._native = native

    @property
    def free_tokens(self) -> int:
        """Tokens that the pages not in use could hold."""
        return self.pool.free * PAGE_TOKENS

    @property
    def total_tokens(self) -> int:
        """Tokens that all pages of the budget hold."""
        return self.pool.most * PAGE_TOKENS

    def new_cache(self, pages: Sequence[int] = ()) -> CompiledCache:
        """See `Engine.new_cache`."""
        cache = CompiledCache(self.pool)
        cache.hold(list(pages))
        cache.length = len(pages) * PAGE_TOKENS
        return cache

    def forward(self, steps: Sequence[Step]) -> list[Logits]:
        """Append every step's ids to its cache in one pass; logits `[last, V]` of each. See `Engine.forward`."""
        return [rows.array() for rows in self.forward_natively(steps)]

    def forward_natively(self, steps: Sequence[Step]) -> list[NativeRows]:
        """As `forward`, with logits for native code."""
        check_steps(self, steps)
        self._find_pages(steps)
        native = (NativeStep * len(steps))(
            *(NativeStep(len(s.ids), s.cache.length, s.last, s.cache.table.buffer_info()[0]) for s in steps)
        )
        count = sum(step.last for step in steps)
        rows = self._native.forward(b"".join(step.ids.tobytes() for step in steps), native, count, self.vocab_size)
        begin, found = 0, []
        for step in steps:
            step.cache.length += len(step.ids)
            found.append(rows[begin : begin + step.last])
            begin += step.last
        return found

    def _find_pages(self, steps: Sequence[Step]) -> None:
        """Pages for what the steps append. OutOfPagesError leaves every cache as it was."""
        missing = sum(step.cache.missing(len(step.ids)) for step in steps)
        if missing:
            spare = self.pool.take(missing)
            for step in steps:
                step.cache.grow(len(step.ids), spare)
            self.pool.give(spare)  # caches that shared a page with each other needed one copy less


def load(directory: Path, *, threads: int, verify: bool = False, level: str | None = None) -> CompiledEngine:
    """Open the artifact in `directory` for `threads` threads.

    Raises LoadError for an artifact that is incomplete, foreign to this machine or whose code is altered, and with
    `verify`, which reads all of it, for any altered file. `level` pins the instruction-set level. By default it is the
    best one this CPU has, of those that read the artifact's prompts where it has any: others would round them
    differently.
    """
    compiled = artifact.read(directory)
    levels = compiled.levels if level else compiled.prompt_levels or compiled.levels
    chosen = cpu_levels.choose_level(levels, cpu_levels.cpu_flags(), level)
    libraries = directory / chosen
    if verify:
        compiled.verify()
    compiled.check_code(chosen)
    weights = _mapped(directory / artifact.WEIGHTS)
    native = NativeLibrary(libraries, weights, compiled.constants, compiled.cache_element_bytes, threads)
    pages = _mapped_prompts(compiled, chosen) if chosen in compiled.prompt_levels else None
    mapped = len(weights) + (0 if pages is None else len(pages))  # one copy for all workers
    reserved = RESERVED_BYTES + int(RESERVED_OF_WEIGHTS * len(weights))
    budget = available_memory() - mapped // memory_sharers() - reserved
    least = -(-min(LEAST_TOKENS, compiled.context_length) // PAGE_TOKENS)
    if budget < least * compiled.page_bytes:
        raise LoadError(
            f"{directory} leaves {max(0, budget) / 1e6:.0f} MB for keys and values, too little for "
            f"{least * PAGE_TOKENS} tokens; raise the memory size, or have fewer processes share it."
        )
    pool = PagePool(compiled.page_bytes, budget // compiled.page_bytes)
    prefixes = [] if pages is None else _prefixes(compiled, pool, pages)
    return CompiledEngine(compiled, chosen, native, pool, prefixes)


def _mapped(path: Path) -> mmap.mmap:
    """A file's bytes, shared with every process that maps it."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    except (OSError, ValueError) as error:
        raise LoadError(f"{path} cannot be mapped ({error}).") from error


def _mapped_prompts(compiled: artifact.Artifact, level: str) -> mmap.mmap:
    """The file with the pages that `level` made. LoadError where it is another artifact's."""
    path = compiled.directory / prompts.file_name(level)
    mapping = _mapped(path)
    if mapping[: prompts.HEADER_BYTES] != prompts.header(compiled.prompt_stamp):
        raise LoadError(f"{path} was made with another model, tokenizer or prompt; {artifact.RECOMPILE}.")
    return mapping


def _prefixes(compiled: artifact.Artifact, pool: PagePool, mapping: mmap.mmap) -> list[tuple[TokenIds, list[int]]]:
    """The artifact's prompts, each with its pages, which lie in `mapping`."""
    pages = pool.adopt(mapping, prompts.HEADER_BYTES)
    numbers = prompts.page_numbers(compiled.prompts)
    return [
        (token_ids(ids), [pages[number] for number in row]) for ids, row in zip(compiled.prompts, numbers, strict=True)
    ]
