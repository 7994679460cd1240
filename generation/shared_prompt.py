"""A prompt that several sequences continue: read once, by the first of them that runs; the others fork its cache."""

import contextlib
from typing import TYPE_CHECKING

from engines.base import KVCache
from generation.sequence import Sequence

if TYPE_CHECKING:
    from engines.rows import Rows


class SharedPrompt:
    """What the sequences of one prompt hold together. Belongs to one scheduler."""

    def __init__(self, sequences: int) -> None:
        """For so many `sequences`, of which none has begun."""
        self.reader: Sequence | None = None
        """The one that reads the prompt, until it has."""
        self._to_begin = sequences
        self._read: tuple[Sequence, KVCache, Rows] | None = None

    @property
    def is_read(self) -> bool:
        """Whether a sequence can begin by forking."""
        return self._read is not None

    def keep(self, reader: Sequence, row: "Rows") -> None:
        """The prompt is read: `reader`'s cache holds it and nothing else, `row [1, V]` are the logits after it.

        Both are copied.
        """
        self.reader = None
        self._to_begin -= 1
        if self._to_begin > 0 and reader.cache is not None:
            # Where there is no memory for it, the others read the prompt themselves.
            with contextlib.suppress(MemoryError):
                copied = row.copy()
                self._read = (reader, reader.cache.fork(), copied)

    def fork_for(self, sequence: Sequence) -> "Rows":
        """Give `sequence` a cache that holds the prompt. The logits `[1, V]` after it."""
        assert self._read is not None
        reader, cache, row = self._read
        sequence.cache = cache.fork()
        sequence.start_as(reader)
        self.forget_one()
        return row

    def forget_one(self) -> None:
        """One sequence less will begin here."""
        self._to_begin -= 1
        if self._to_begin <= 0:
            self.release()

    def release(self) -> None:
        """Give the pages back; a sequence that still has to begin reads the prompt itself."""
        if self._read is not None:
            self._read[1].close()
            self._read = None
