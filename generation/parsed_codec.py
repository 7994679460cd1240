"""A tokenizer that the tokenizers library parses from a checkpoint's `tokenizer.json`."""

import os
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer as RustTokenizer

from engines.base import TokenIds, token_ids
from engines.errors import LoadError
from generation.vocabulary import FILE, Spelling, Vocabulary, read_vocabulary, spelling

# One text is encoded by one thread: a pool of the library's own, beside the engine's threads, would gain nothing.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class ParsedCodec:
    """Implements `generation.codec.Codec`."""

    def __init__(self, path: Path) -> None:
        """Read `tokenizer.json`. Raises LoadError."""
        if not path.is_file():
            raise LoadError(
                f"{path} is missing; write it with transformers: "
                f"AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)."
            )
        try:
            self._tokenizer = RustTokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise LoadError(f"{path} is not a tokenizer ({error}); copy the checkpoint again.") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._saved = path.with_name(FILE)

    @cached_property
    def longest(self) -> int:
        """See `Codec.longest`. 20 ms for 50,000, so not before a long text comes."""
        return max(map(len, self._tokenizer.get_vocab(with_added_tokens=True)), default=1)

    @property
    def largest(self) -> int:
        """See `Codec.largest`. 20 ms for 50,000."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    def encode(self, text: str, *, add_special_tokens: bool) -> TokenIds:
        """See `Codec.encode`.

        Of the library's ways to encode, the batch is one that releases the interpreter's lock, and without the tokens'
        offsets it needs a third of the time and of the memory.
        """
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        return token_ids(encoding.ids)

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        """See `Codec.decode`."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        return text

    def token_id(self, token: str) -> int | None:
        """See `Codec.token_id`."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def is_special(self, token: int) -> bool:
        """See `Codec.is_special`."""
        return token in self._special

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(id for id, added in self._tokenizer.get_added_tokens_decoder().items() if added.special)

    def token_bytes(self, token: int) -> bytes | None:
        """See `Codec.token_bytes`."""
        return None if self._spelling is None else self._spelling(self._tokenizer.id_to_token(token) or "")

    @cached_property
    def _spelling(self) -> Spelling | None:
        return spelling(self._tokenizer)

    def vocabulary(self, size: int) -> Vocabulary | None:
        """See `Codec.vocabulary`. A vocabulary of 50,000 takes 0.1 s where it is not in a file."""
        if self._spelling is None:
            return None
        return read_vocabulary(self._tokenizer, self._spelling, size, self._saved)
