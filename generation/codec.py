"""What a tokenizer needs of whatever holds its vocabulary: the tokenizers library, or a file of tables."""

from typing import Protocol

from engines.base import TokenIds
from generation.vocabulary import Vocabulary


class Codec(Protocol):
    """A vocabulary, text to ids and back. Immutable; safe to share between threads."""

    @property
    def longest(self) -> int:
        """Characters of the vocabulary's longest entry."""
        ...

    @property
    def largest(self) -> int:
        """The largest id, -1 where there is none. Goes through all of a vocabulary that is not in tables."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool) -> TokenIds:
        """Token ids `[S]`; other threads run meanwhile."""
        ...

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        """Text of `ids`; bytes that are no UTF-8 become U+FFFD, ids that there are not nothing."""
        ...

    def token_id(self, token: str) -> int | None:
        """The id of a vocabulary entry, None where there is none."""
        ...

    def is_special(self, token: int) -> bool:
        """Whether decoding can leave this token out."""
        ...

    def token_bytes(self, token: int) -> bytes | None:
        """The bytes one token adds to a text; None where pieces do not say them."""
        ...

    def vocabulary(self, size: int) -> Vocabulary | None:
        """The bytes of all tokens, for a network of `size` of them. None where pieces do not say them."""
        ...
