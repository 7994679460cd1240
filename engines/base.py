"""The Engine protocol: the whole contract between sequences and a network.

Generation needs no torch, and with the compiled engine no numpy. An engine is immutable once loaded; everything that
belongs to one sequence lives in the KV cache it hands out.
"""

from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

from msgspec import Struct

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Logits = npt.NDArray[np.float32]
else:
    Logits = Any


class TokenIds(Protocol):
    """Token ids `[S]` in one row of 64-bit integers: what `token_ids` makes, or a numpy array."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: Any, /) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...
    def tolist(self) -> list[int]: ...
    def tobytes(self) -> bytes: ...


def token_ids(ids: Sequence[int] = ()) -> "array[int]":
    """An array of `ids`."""
    return array("q", ids)


PAGE_TOKENS = 16
"""Tokens of one page of the KV cache, all layers together."""


class OutOfPagesError(MemoryError):
    """The memory for caches cannot hold what a pass would append. Nothing was computed; every cache is as before."""


class KVCache(Protocol):
    """Keys and values of one sequence. Not thread-safe.

    Made of pages; full pages may be shared with other caches and are then never written.
    """

    @property
    def length(self) -> int:
        """Tokens held so far."""
        ...

    @property
    def pages(self) -> list[int]:
        """What holds them, PAGE_TOKENS each, of `Engine.pool`; empty where that is None."""
        ...

    def truncate(self, length: int) -> None:
        """Forget all tokens from `length` on (0 <= length <= self.length); whole pages go back at once."""
        ...

    def fork(self) -> Self:
        """Another cache with the same tokens. Where pages are shared, nothing but a part-full page is ever copied."""
        ...

    def close(self) -> None:
        """Give all pages back. Idempotent; the cache is empty and usable afterwards."""
        ...


class Pages(Protocol):
    """Who holds the pages of an engine's caches, counted. Thread-safe. A page is named by its address."""

    page_bytes: int
    """Size of one."""

    def share(self, pages: list[int]) -> None:
        """One more holds each of `pages`."""
        ...

    def give(self, pages: list[int]) -> None:
        """One less holds each of `pages`; one that nobody holds is free."""
        ...

    def keep(self, pages: list[int]) -> None:
        """Hold each of `pages` until `forget`; none of them is kept yet."""
        ...

    def forget(self, page: int) -> bool:
        """Hold a kept `page` no longer. Whether it is free now."""
        ...

    @property
    def idle(self) -> int:
        """How many pages are kept and held by nobody else: `forget` would free them."""
        ...


class Step(Struct, frozen=True):
    """One sequence's part of a forward pass."""

    ids: TokenIds
    """`[S]`, S >= 1, appended to the cache."""
    cache: Any
    """A KVCache of the same engine; each cache at most once in a pass."""
    last: int = 1
    """Rows of logits wanted: after each of the last `last` ids, 0 <= last <= S."""


class Engine(Protocol):
    """A loaded network. `forward` may run in several threads at once, each with its own caches."""

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
    max_rows: int
    """Most ids one `forward` takes, all steps together: it bounds memory, and how long a deadline can go unseen."""

    @property
    def pool(self) -> Pages | None:
        """The pages of its caches; None where caches share none."""
        ...

    @property
    def prefixes(self) -> Sequence[tuple[TokenIds, KVCache]]:
        """Prompts that came with the model already read: ids `[S]` and a cache that holds exactly these."""
        ...

    def new_cache(self, pages: Sequence[int] = ()) -> KVCache:
        """A cache of the tokens in full `pages`, held in this order from a sequence's first token on.

        Without any, an empty one, which takes no memory yet. An engine without shared pages takes none.
        """
        ...

    def forward(self, steps: Sequence[Step]) -> list[Logits]:
        """Append each step's ids to its cache, in one pass where the engine can. Logits `[last, V]` per step.

        Raises ValueError for ids outside [0, V), for more than `max_rows` ids and for a cache that would grow beyond
        the context; OutOfPagesError before anything is computed; another MemoryError when memory ran out inside the
        pass. After any of them the caches are as they were before and can be used.
        """
        ...

    @property
    def free_tokens(self) -> int:
        """Tokens that pages not in use could hold now: a multiple of PAGE_TOKENS."""
        ...

    @property
    def total_tokens(self) -> int:
        """Tokens that all pages together hold."""
        ...


def check_steps(engine: Engine, steps: Sequence[Step]) -> None:
    """ValueError for what `Engine.forward` does not take."""
    rows = sum(len(step.ids) for step in steps)
    if rows > engine.max_rows:
        raise ValueError(f"one pass takes up to {engine.max_rows} ids, not {rows}")
    if len({id(step.cache) for step in steps}) < len(steps):
        raise ValueError("a cache can take part in a pass only once")
    for step in steps:
        view = memoryview(step.ids)  # type: ignore[arg-type]
        if view.ndim != 1 or view.format not in ("l", "q") or not len(view):
            raise ValueError(f"a step's token ids are one row of int64, not {view.format} {view.shape}")
        ids = step.ids.tolist()
        if not 0 <= step.last <= len(ids):
            raise ValueError(f"logits can be had after 0 to {len(ids)} of the ids, not {step.last}")
        if min(ids) < 0 or max(ids) >= engine.vocab_size:
            raise ValueError(f"token ids lie between 0 and {engine.vocab_size - 1}")
        if step.cache.length + len(ids) > engine.context_length:
            raise ValueError(
                f"{step.cache.length} + {len(ids)} tokens do not fit the context of {engine.context_length}"
            )
