"""The compiled engine: runs an artifact of `python -m compiler` without torch or transformers.

Maps the weight file read-only, so that processes share it and nothing is copied, and opens the machine code for this
CPU. Everything is checked here before it reaches native code. Knows nothing of how artifacts are made.
"""

import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engines import artifact
from engines.base import PAGE_TOKENS, Logits, OutOfPagesError, Step, TokenIds, check_steps
from engines.errors import LoadError
from engines.machine import available_memory
from engines.native_library import NativeEngine


class CompiledCache:
    """The keys and values of one sequence: one block of memory, of which only the part in use is ever touched."""

    def __init__(self, capacity: int, token_bytes: int, element_bytes: int) -> None:
        """Room for `capacity` tokens of `token_bytes` each, taken when the first one arrives."""
        self._size = (capacity, token_bytes, element_bytes)
        self._memory: mmap.mmap | None = None
        self.state = np.zeros(4, np.int64)
        """Address, capacity, tokens held and bytes of an element, as the graphs read them."""

    @property
    def length(self) -> int:
        """See `KVCache.length`."""
        return int(self.state[2])

    def allocate(self) -> None:
        """Map the memory, if that has not been done. Raises MemoryError."""
        if self._memory is not None:
            return
        capacity, token_bytes, element_bytes = self._size
        rounded = -(-capacity // PAGE_TOKENS) * PAGE_TOKENS
        try:
            # Private: to the kernel shared anonymous pages are of a file, and `engines.machine` leaves files out.
            self._memory = mmap.mmap(-1, rounded * token_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError) as error:
            raise MemoryError(f"no memory for a cache of {capacity} tokens") from error
        address = np.frombuffer(self._memory, np.uint8).ctypes.data
        self.state = np.array([address, rounded, 0, element_bytes], np.int64)

    def truncate(self, length: int) -> None:
        """See `KVCache.truncate`."""
        if not 0 <= length <= self.length:
            raise ValueError(f"a cache of {self.length} tokens cannot be cut to {length}")
        self.state[2] = length

    def fork(self) -> "CompiledCache":
        """See `KVCache.fork`; here everything is copied."""
        other = CompiledCache(*self._size)
        if self._memory is not None:
            other.allocate()
            assert other._memory is not None
            other._memory[:] = self._memory
            other.state[2] = self.length
        return other

    def close(self) -> None:
        """See `KVCache.close`."""
        self._memory = None
        self.state = np.zeros(4, np.int64)


class CompiledEngine:
    """A mapped artifact. Implements `engines.base.Engine`."""

    name = "compiled"
    device = "cpu"

    def __init__(self, compiled: artifact.Artifact, level: str, native: NativeEngine) -> None:
        self.dtype = compiled.dtype
        self.level = level
        self.vocab_size = compiled.vocab_size
        self.context_length = compiled.context_length
        self.max_rows = compiled.prefill_chunk
        self._token_bytes = compiled.cache_elements * compiled.cache_element_bytes
        self._element_bytes = compiled.cache_element_bytes
        self._native = native
        self.total_tokens = self.free_tokens

    @property
    def free_tokens(self) -> int:
        """See `Engine.free_tokens`: what the memory that is free now could hold."""
        return max(0, available_memory() // self._token_bytes // PAGE_TOKENS * PAGE_TOKENS)

    def new_cache(self) -> CompiledCache:
        """See `Engine.new_cache`."""
        return CompiledCache(self.context_length, self._token_bytes, self._element_bytes)

    def forward(self, steps: Sequence[Step]) -> list[Logits]:
        """See `Engine.forward`."""
        check_steps(self, steps)
        new_page = any(
            (s.cache.length + len(s.ids) - 1) // PAGE_TOKENS > (s.cache.length - 1) // PAGE_TOKENS for s in steps
        )
        if new_page and sum(len(step.ids) for step in steps) > self.free_tokens:
            raise OutOfPagesError("the memory that is free cannot hold these tokens")
        lengths = [step.cache.length for step in steps]
        try:
            return [self._run(np.ascontiguousarray(step.ids), step.cache, step.last) for step in steps]
        except BaseException:
            for step, length in zip(steps, lengths, strict=True):
                step.cache.truncate(length)
            raise

    def _run(self, ids: TokenIds, cache: CompiledCache, last: int) -> Logits:
        cache.allocate()
        logits = np.empty((max(last, 1), self.vocab_size), np.float32)
        self._native.forward(ids, cache.state, logits)
        cache.state[2] += len(ids)
        return logits[len(logits) - last :]


def load(directory: Path, *, threads: int, verify: bool = False, level: str | None = None) -> CompiledEngine:
    """Open the artifact in `directory` for `threads` threads.

    Raises LoadError for an artifact that is incomplete, foreign to this machine or, with `verify`, altered (which
    reads all of it). `level` pins the instruction-set level instead of taking the best one this CPU has.
    """
    compiled = artifact.read(directory)
    chosen = artifact.choose_level(compiled.levels, artifact.cpu_flags(), level)
    libraries = directory / chosen
    if verify:
        compiled.verify()
    try:
        with (directory / artifact.WEIGHTS).open("rb") as file:
            weights = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    except (OSError, ValueError) as error:
        raise LoadError(f"{directory / artifact.WEIGHTS} cannot be mapped ({error}).") from error
    return CompiledEngine(compiled, chosen, NativeEngine(libraries, weights, compiled.constants, threads))
