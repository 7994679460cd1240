"""The Engine protocol: the whole contract between the token loop and a network.

Arrays are numpy, so that the loop needs no torch. An engine is immutable once loaded; everything that belongs to
one request lives in the KV cache it hands out, so threads that use one engine with caches of their own never share
mutable state.
"""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

TokenIds = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]


class KVCache(Protocol):
    """The keys and values of one sequence. Belongs to one request; not thread-safe."""

    @property
    def length(self) -> int:
        """Tokens held so far."""
        ...


class Engine(Protocol):
    """A loaded network. Thread-safe: `forward` may run at once in several threads, each with its own cache."""

    name: str
    """`transformers` or `compiled`."""
    dtype: str
    """What the weights are held in, as reported to users: `float32`, `bfloat16`, `int8`, ..."""
    device: str
    """`cpu`, `cuda:0`, ..."""
    vocab_size: int
    """V: width of the logits; every token id is below it."""
    context_length: int
    """Most tokens one cache can hold, prompt and completion together."""
    prefill_chunk: int
    """Most tokens one `forward` takes: it bounds memory, and how long a deadline can go unseen."""

    def new_cache(self, capacity: int) -> KVCache:
        """An empty cache that will hold at most `capacity` tokens (1 <= capacity <= context_length)."""
        ...

    def forward(self, ids: TokenIds, cache: Any, last: int = 1) -> Logits:
        """Append `ids [S]` to the cache and return the logits after each of the last `last` of them, `[last, V]`.

        1 <= S <= prefill_chunk and 1 <= last <= S. Raises ValueError for ids outside [0, V) or a cache that would
        overflow, and MemoryError when memory runs out; the cache must not be used again after an error.
        """
        ...
