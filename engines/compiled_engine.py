"""The compiled engine: runs an artifact of `python -m compiler` without torch or transformers.

Maps the weight file read-only, so that processes share it and nothing is copied, and opens the machine code for this
CPU. Everything is checked here before it reaches native code. Knows nothing of how artifacts are made.
"""

import mmap
from pathlib import Path

import numpy as np

from engines import artifact
from engines.base import Logits, TokenIds
from engines.errors import LoadError
from engines.machine import require_memory
from engines.native_library import NativeEngine

_TILE = 16  # tokens per tile of the native cache layout


class CompiledCache:
    """The keys and values of one sequence: one block of memory, of which only the part in use is ever touched."""

    def __init__(self, capacity: int, tokens_bytes: int, element_bytes: int) -> None:
        """Room for `capacity` tokens of `tokens_bytes` each."""
        self.capacity = capacity
        self.usable = True
        rounded = -(-capacity // _TILE) * _TILE
        try:
            # Private: to the kernel shared anonymous pages are of a file, and `engines.machine` leaves files out.
            self._memory = mmap.mmap(-1, rounded * tokens_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError) as error:
            raise MemoryError(f"no memory for a cache of {capacity} tokens") from error
        address = np.frombuffer(self._memory, np.uint8).ctypes.data
        self.state = np.array([address, rounded, 0, element_bytes], np.int64)

    @property
    def length(self) -> int:
        """Tokens held so far."""
        return int(self.state[2])


class CompiledEngine:
    """A mapped artifact. Implements `engines.base.Engine`."""

    name = "compiled"
    device = "cpu"

    def __init__(self, compiled: artifact.Artifact, level: str, native: NativeEngine) -> None:
        self.dtype = compiled.dtype
        self.level = level
        self.vocab_size = compiled.vocab_size
        self.context_length = compiled.context_length
        self.prefill_chunk = compiled.prefill_chunk
        self._token_bytes = compiled.cache_elements * compiled.cache_element_bytes
        self._element_bytes = compiled.cache_element_bytes
        self._native = native

    def new_cache(self, capacity: int) -> CompiledCache:
        """An empty cache for at most `capacity` tokens. Memory is used as they arrive; MemoryError if it could not."""
        if not 1 <= capacity <= self.context_length:
            raise ValueError(f"a cache holds between 1 and {self.context_length} tokens, not {capacity}")
        require_memory(capacity * self._token_bytes)
        return CompiledCache(capacity, self._token_bytes, self._element_bytes)

    def forward(self, ids: TokenIds, cache: CompiledCache, last: int = 1) -> Logits:
        """Append `ids [S]` to the cache; logits `[last, V]` after each of the last `last` of them."""
        ids = np.ascontiguousarray(ids)
        if ids.ndim != 1 or ids.dtype != np.int64:
            raise ValueError(f"token ids are one row of int64, not {ids.dtype} {ids.shape}")
        count = len(ids)
        if not 1 <= count <= self.prefill_chunk:
            raise ValueError(f"one call takes between 1 and {self.prefill_chunk} tokens, not {count}")
        if not 1 <= last <= count:
            raise ValueError(f"logits can be had for 1 to {count} tokens, not {last}")
        if ids.min() < 0 or ids.max() >= self.vocab_size:
            raise ValueError(f"token ids lie between 0 and {self.vocab_size - 1}")
        if not cache.usable:
            raise ValueError("this cache met an error and cannot be used again")
        if cache.length + count > cache.capacity:
            raise ValueError(f"{cache.length} + {count} tokens do not fit a cache of {cache.capacity}")
        logits = np.empty((last, self.vocab_size), np.float32)
        cache.usable = False
        self._native.forward(ids, cache.state, logits)
        cache.usable = True
        cache.state[2] += count
        return logits


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
