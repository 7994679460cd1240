"""What each token of a vocabulary adds to a text, in bytes, from the vocabulary's pieces.

Decoding one id does not tell it: a decoder strips the space that begins a text, and half a character has no text. What
is here is what decoding makes of the token in the middle of a text.
"""

import json
from array import array
from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from tokenizers import Tokenizer as RustTokenizer

FILE = "vocabulary.bin"
"""What a compiled artifact has saved, so that the first answer in shape need not wait for it."""
REPLACED_SPACE = "\u2581".encode()
"""What stands for a space in SentencePiece's vocabularies."""
Spelling = Callable[[str], bytes]
"""A piece of the vocabulary to its bytes."""


class Vocabulary(Struct, frozen=True):
    """All tokens of a network."""

    tokens: list[bytes]
    """By id. Empty where the tokenizer has no such token."""
    special: frozenset[int]
    """Those that decoding leaves out of a text."""

    def save(self, path: Path) -> None:
        """Write what takes longest to make, the tokens: where each ends, as 32-bit numbers, and their bytes."""
        ends = array("I", accumulate(map(len, self.tokens)))
        path.write_bytes(ends.tobytes() + b"".join(self.tokens))


def read_vocabulary(tokenizer: "RustTokenizer", spell: Spelling, size: int, saved: Path) -> Vocabulary:
    """The bytes of the ids below `size`: from the file that was `saved`, where there is one."""
    added = tokenizer.get_added_tokens_decoder()
    if saved.is_file():
        tokens = _saved_tokens(saved.read_bytes(), size)
    else:
        tokens = [b""] * size
        for piece, token in tokenizer.get_vocab(with_added_tokens=True).items():
            tokens[token] = spell(piece)
        for token in added:  # these decode to what the normalizer has made of them
            tokens[token] = spell(tokenizer.id_to_token(token) or "")
    return Vocabulary(tokens, frozenset(token for token, properties in added.items() if properties.special))


def _saved_tokens(content: bytes, size: int) -> list[bytes]:
    ends = array("I", content[: 4 * size])
    content = content[4 * size :]
    return [content[begin:end] for begin, end in pairwise([0, *ends.tolist()])]


def spelling(tokenizer: "RustTokenizer") -> Spelling | None:
    """How this tokenizer's decoder spells a piece, None where pieces alone do not say (WordPiece, none at all)."""
    decoders = [] if tokenizer.decoder is None else list(_flat(json.loads(tokenizer.decoder.__getstate__())))
    kinds = {decoder["type"] for decoder in decoders}
    if kinds == {"ByteLevel"}:
        return _byte_level
    spaces = [space for decoder in decoders if (space := _stands_for_a_space(decoder))]
    # Fuse joins texts and Strip looks at their ends only: neither changes what stands in the middle.
    if len(spaces) != 1 or not kinds <= {"Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"}:
        return None
    return lambda piece: (
        _byte_fallback(piece)
        if "ByteFallback" in kinds and _is_byte(piece)
        else (piece.replace(spaces[0], " ").encode())
    )


def _flat(decoder: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A decoder's parts in their order."""
    if decoder["type"] == "Sequence":
        for part in decoder["decoders"]:
            yield from _flat(part)
    else:
        yield decoder


def _stands_for_a_space(decoder: dict[str, Any]) -> str | None:
    if decoder["type"] == "Metaspace":
        return str(decoder["replacement"])
    if decoder["type"] == "Replace" and decoder["content"] == " " and "String" in decoder["pattern"]:
        return str(decoder["pattern"]["String"])
    return None


def _is_byte(piece: str) -> bool:
    """Whether it is `<0x` and two hexadecimal digits: a byte that no piece has."""
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def _byte_fallback(piece: str) -> bytes:
    return bytes.fromhex(piece[3:-1])


def byte_level_bytes(piece: str) -> bytes | None:
    """The bytes that the characters of a piece stand for; None where it has a character that stands for none."""
    try:
        return piece.translate(_BYTES_AS_LATIN_1).encode("latin-1")
    except UnicodeEncodeError:
        return None


def _byte_level(piece: str) -> bytes:
    """A piece that does not stand for bytes, an added token, stands for its own text."""
    found = byte_level_bytes(piece)
    return piece.encode() if found is None else found


def _bytes_of_characters() -> dict[str, int]:
    """Byte-level BPE's alphabet (GPT-2): printable Latin-1 stands for itself, the other bytes for U+0100 onwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTES_AS_LATIN_1 = dict.fromkeys(range(256), "\uffff") | {
    ord(character): chr(byte) for character, byte in _bytes_of_characters().items()
}
"""Every byte by the character with its number, and what stands for no byte by one that Latin-1 does not have."""
