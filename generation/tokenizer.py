"""Text to token ids and back, and text that grows token by token without ever splitting a character.

The same ids as transformers' AutoTokenizer (a test compares them) without its imports: from the `tokenizers` library,
or from a compiled artifact's tables where those have been proved equal to it.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.base import TokenIds
from engines.errors import LoadError
from generation.tokenizer_file import FILE

if TYPE_CHECKING:
    from generation.codec import Codec
    from generation.vocabulary import Vocabulary

REPLACEMENT = "\ufffd"
"""What decoding puts where bytes are not (yet) a character."""
PIECE = 16_384
"""Characters of a long text whose tokens are counted at a time."""
LONGEST_WAIT = 16
"""Tokens in which any half of a character has been completed, or never will be: it has four bytes at most."""
KEPT_TOKENS = 4
"""Of those that never were completed, the last ones, which may yet be."""
CONTEXT_TOKENS = 6
"""Prompt tokens decoded before the completion: decoders which strip a text's first space leave the completion's."""


class Tokenizer:
    """One checkpoint's tokenizer. Immutable after load, safe to share between threads."""

    def __init__(self, directory: Path) -> None:
        """That of a checkpoint or an artifact. Raises LoadError."""
        self._codec = _open(directory)
        self.special_tokens = _special_tokens(directory)
        self._directory = directory

    def require_ids_below(self, size: int) -> None:
        """LoadError where the vocabulary has ids beyond `size` embeddings."""
        if (largest := self._codec.largest) >= size:
            raise LoadError(
                f"{self._directory / 'tokenizer.json'} has ids up to {largest} and the model only {size} embeddings; "
                f"use the tokenizer the model was trained with."
            )

    def encode(self, text: str, *, add_special_tokens: bool = True) -> TokenIds:
        """Token ids `[S]`. A rendered chat template already holds its special tokens: pass False for it.

        Other threads run meanwhile.
        """
        return self._codec.encode(text, add_special_tokens=add_special_tokens)

    def exceeds(self, text: str, tokens: int) -> bool:
        """Whether `text` is certainly longer than `tokens`, told without encoding more of it than that takes.

        A text is too long by its characters alone when `tokens` times the longest one could not hold them. Else its
        tokens are counted piece by piece. A cut between two pieces can add no more tokens than one has characters.
        """
        if len(text) <= max(PIECE, tokens):
            return False  # no more work to encode than a prompt which fits
        longest = self._codec.longest
        if len(text) > tokens * longest:
            return True
        certain = 0
        for start in range(0, len(text), PIECE):
            certain += len(self.encode(text[start : start + PIECE], add_special_tokens=False)) - longest
            if certain > tokens:
                return True
        return False

    def decode(self, ids: list[int], *, skip_special_tokens: bool = True) -> str:
        """Text of `ids`; bytes that are no UTF-8 become U+FFFD."""
        return self._codec.decode(ids, skip_special_tokens=skip_special_tokens)

    def token_id(self, token: str) -> int | None:
        """The id of a vocabulary entry, None where there is none."""
        return self._codec.token_id(token)

    def special_id(self, token: str) -> int | None:
        """The id of a special token, of those that decoding leaves out; None where it is none."""
        found = self._codec.token_id(token)
        return found if found is not None and self._codec.is_special(found) else None

    def is_special(self, token: int) -> bool:
        """Whether a token is one of those that decoding leaves out."""
        return self._codec.is_special(token)

    def token_text(self, token: int) -> str:
        """How one token is shown to people: its own text, special tokens by name."""
        return self.decode([token], skip_special_tokens=False)

    def token_bytes(self, token: int) -> bytes:
        """The bytes one token adds to a text, also where they are only part of a character."""
        spelled = self._codec.token_bytes(token)
        return self.token_text(token).encode() if spelled is None else spelled

    def vocabulary(self, size: int) -> "Vocabulary | None":
        """The bytes of all tokens, for a network of `size` of them. None where pieces do not say them."""
        return self._codec.vocabulary(size)


def _open(directory: Path) -> "Codec":
    """The tables in `directory` where there are some, else its tokenizer.json. Imports what that takes alone."""
    if (directory / FILE).is_file():
        from generation.mapped_codec import MappedCodec

        return MappedCodec(directory)
    from generation.parsed_codec import ParsedCodec

    return ParsedCodec(directory / "tokenizer.json")


class Detokenizer:
    """The text of one completion as its tokens arrive; belongs to one request.

    A window of recent tokens is decoded each time, since a token's text can depend on its neighbours. What may still
    change, a run of U+FFFD at the end (half a character), is held back until a later token completes it.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: TokenIds, shown: frozenset[int] = frozenset()) -> None:
        """`shown` are special tokens that the text is to have by name."""
        self._tokenizer = tokenizer
        self._shown = shown
        self._window, text = _context(tokenizer, prompt)
        self._read = len(self._window)
        self._emitted = len(text.rstrip(REPLACEMENT))

    def add(self, token: int) -> str:
        """The text that became final with this token; empty while a character is incomplete."""
        if token in self._shown:
            self._window, self._read, self._emitted = [token], 1, 0
            return self._tokenizer.token_text(token)
        if self._tokenizer.is_special(token):
            return ""
        self._window.append(token)
        text = self._tokenizer.decode(self._window)
        stable = text.rstrip(REPLACEMENT)
        new = stable[self._emitted :]
        self._emitted = max(self._emitted, len(stable))
        if new and len(stable) == len(text):
            # All of it is out: what came out last is the context that the next token needs.
            self._window = self._window[self._read :]
            self._read = len(self._window)
            self._emitted = len(self._tokenizer.decode(self._window))
        elif len(self._window) - self._read > LONGEST_WAIT:
            self._window, self._read = self._window[-KEPT_TOKENS:], 0
            cut = len(text) - len(self._tokenizer.decode(self._window))
            new += text[self._emitted : cut]
            self._emitted = max(0, self._emitted - cut)
        return new

    def flush(self) -> str:
        """What was held back, once no token will come: U+FFFD that tokens spelled out, no half of a character."""
        spelled = b"".join(map(self._tokenizer.token_bytes, self._window))
        held = len(self._tokenizer.decode(self._window)) - self._emitted
        whole = len(spelled) - len(spelled.removesuffix(REPLACEMENT.encode() * held))
        return REPLACEMENT * held if whole else ""


def _context(tokenizer: Tokenizer, prompt: TokenIds) -> tuple[list[int], str]:
    """The prompt's last tokens and their text, enough of them not to begin inside a character."""
    size = CONTEXT_TOKENS
    while True:
        window: list[int] = prompt[-size:].tolist()
        text = tokenizer.decode(window)
        if not text.startswith(REPLACEMENT) or size >= len(prompt):
            return window, text
        size *= 2


def _special_tokens(directory: Path) -> dict[str, str]:
    """`bos_token`, `eos_token`, ... by name, as chat templates refer to them."""
    path = directory / "tokenizer_config.json"
    if not path.is_file():
        return {}
    config: dict[str, Any] = read_json(path)
    named = {name: value for name, value in config.items() if name.endswith("_token")}
    contents = {name: value.get("content") if isinstance(value, dict) else value for name, value in named.items()}
    return {name: value for name, value in contents.items() if isinstance(value, str)}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a checkpoint file; LoadError names the file when it is not one."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise LoadError(f"{path} cannot be read as JSON ({error}); copy the checkpoint again.") from None
    if not isinstance(value, dict):
        raise LoadError(f"{path} does not hold a JSON object; copy the checkpoint again.")
    return value
