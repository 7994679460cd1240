"""A tokenizer in tables that are used where they lie: a compiled artifact's, without the tokenizers library.

Texts are encoded by engines/native/tokenizer.cpp. Ids are looked up here, where no altered file can do harm.
"""

import ctypes
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from engines.base import TokenIds
from engines.errors import LoadError
from generation.nfc import nfc
from generation.tokenizer_file import (
    BYTE,
    DECODERS,
    FILE,
    KNOWN,
    NORMALIZERS,
    REMAKE,
    SPECIAL,
    VERSION,
    TokenizerFile,
)
from generation.vocabulary import REPLACED_SPACE, Vocabulary, byte_level_bytes

LIBRARY = "tokenizer.so"
_NO_MEMORY, _DAMAGED = -1, -2
_UNKNOWN = "\ufffd"


def open_library(path: Path) -> ctypes.CDLL:
    """The compiled engines/native/tokenizer.cpp. Raises LoadError."""
    try:
        library = ctypes.CDLL(str(path))
        version = library.tokenizer_version()
    except (OSError, AttributeError) as error:
        raise LoadError(f"{path} cannot be loaded ({error}); {REMAKE}.") from None
    if version != VERSION:
        raise LoadError(f"{path} reads tokenizers of version {version} instead of {VERSION}; {REMAKE}.")
    return library


class MappedCodec:
    """Implements `generation.codec.Codec`."""

    def __init__(self, directory: Path) -> None:
        """Raises LoadError where the file or the library in `directory` is altered or of another version."""
        self._file = file = TokenizerFile(directory / FILE)
        library = open_library(directory / LIBRARY)
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        self._native_encode = library.tokenizer_encode
        self._native_encode.restype = number
        self._native_encode.argtypes = (pointer, ctypes.c_char_p, number, ctypes.c_int32, pointer, number)
        self._native_find = library.tokenizer_find
        self._native_find.restype = number
        self._native_find.argtypes = (pointer, ctypes.c_char_p, number)
        self._native_find_added = library.tokenizer_find_added
        self._native_find_added.argtypes = (pointer, ctypes.c_char_p, number, number, pointer)
        self._ends = file.numbers("ends")
        self._pieces = file.section("bytes")
        self._kinds = file.section("kinds")
        self._before = array("q", file.numbers("before"))
        self._after = array("q", file.numbers("after"))
        self._byte_level = file.options["decoder"] == DECODERS.index("byte_level")
        self._strips = file.options["decoder"] == DECODERS.index("byte_fallback_stripped")
        self._composes = file.options["normalizer"] == NORMALIZERS.index("nfc")
        self.longest = file.options["longest_characters"]
        self.largest = file.tokens - 1

    def encode(self, text: str, *, add_special_tokens: bool) -> TokenIds:
        """See `Codec.encode`. UnicodeEncodeError for half a surrogate pair, MemoryError."""
        if self._composes and not text.isascii() and nfc(text, self._file) != text:
            ids = self._encode_composed(text.encode())
        else:
            ids = self._encode(text.encode(), whole=True)
        return self._before + ids + self._after if add_special_tokens else ids

    def _encode(self, text: bytes, *, whole: bool) -> "array[int]":
        """Ids of a text; `whole` is False between the added tokens that are matched before it is normalised."""
        capacity = len(text)
        while True:
            ids = array("q", bytes(8 * capacity))
            count = self._native_encode(self._file.address, text, len(text), whole, ids.buffer_info()[0], capacity)
            if count == _NO_MEMORY:
                raise MemoryError("no memory to encode a text")
            if count == _DAMAGED:
                raise RuntimeError(self._file.damage)
            if count <= capacity:
                return ids[:count]
            capacity = count

    def _encode_composed(self, text: bytes) -> "array[int]":
        """Ids of a text that NFC changes: what lies between added tokens is composed by itself."""
        ids, done = array("q"), 0
        found = (ctypes.c_int64 * 3)()
        while self._native_find_added(self._file.address, text, len(text), done, found):
            if found[2] > self.largest:
                raise RuntimeError(self._file.damage)
            ids += self._encode_between(text[done : found[0]])
            ids.append(found[2])
            done = found[1]
        return ids + self._encode_between(text[done:])

    def _encode_between(self, text: bytes) -> "array[int]":
        return self._encode(nfc(text.decode(), self._file).encode(), whole=False)

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        """See `Codec.decode`. OverflowError for numbers that are no unsigned ones of 32 bits."""
        hidden = SPECIAL if skip_special_tokens else 0
        kinds, ends, pieces, count = self._kinds, self._ends, self._pieces, len(self._kinds)
        tokens = [
            token for token in array("I", ids) if token < count and kinds[token] & KNOWN and not kinds[token] & hidden
        ]
        if self._byte_level:
            return b"".join([pieces[ends[token] : ends[token + 1]] for token in tokens]).decode(errors="replace")
        text = "".join(self._texts(tokens))
        return text.removeprefix(" ") if self._strips else text

    def _texts(self, tokens: list[int]) -> Iterator[str]:
        """The texts of `tokens`, whose runs of single bytes must be UTF-8 as a whole."""
        run = b""
        for token in tokens:
            if self._kinds[token] & BYTE:
                run += self._spelled(token)
            else:
                yield _text_of(run)
                run = b""
                yield self._spelled(token).decode(errors="replace")
        yield _text_of(run)

    def _spelled(self, token: int) -> bytes:
        """The bytes that a token adds in the middle of a text."""
        piece = bytes(self._pieces[self._ends[token] : self._ends[token + 1]])
        return piece if self._byte_level else piece.replace(REPLACED_SPACE, b" ")

    def token_id(self, token: str) -> int | None:
        """See `Codec.token_id`."""
        entries, texts = self._file.numbers("named_entries"), self._file.section("named_texts")
        wanted = token.encode()

        def name(place: int) -> bytes:
            return bytes(texts[entries[3 * place] : entries[3 * place] + entries[3 * place + 1]])

        count = len(entries) // 3
        place = bisect_left(range(count), wanted, key=name)
        if place < count and name(place) == wanted:
            return entries[3 * place + 2]
        piece = byte_level_bytes(token) if self._byte_level else wanted
        found = -1 if piece is None else self._native_find(self._file.address, piece, len(piece))
        return None if found < 0 else found

    def is_special(self, token: int) -> bool:
        """See `Codec.is_special`."""
        return token < len(self._kinds) and bool(self._kinds[token] & SPECIAL)

    def token_bytes(self, token: int) -> bytes:
        """See `Codec.token_bytes`."""
        return self._spelled(token) if 0 <= token < len(self._kinds) else b""

    def vocabulary(self, size: int) -> Vocabulary:
        """See `Codec.vocabulary`."""
        pieces, ends = bytes(self._pieces), self._ends.tolist()
        tokens = [pieces[begin:end] for begin, end in pairwise(ends)]
        if not self._byte_level:
            tokens = [piece.replace(REPLACED_SPACE, b" ") for piece in tokens]
        special = frozenset(token for token, kind in enumerate(bytes(self._kinds)) if kind & SPECIAL)
        return Vocabulary(tokens + [b""] * (size - len(tokens)), special)


def _text_of(run: bytes) -> str:
    try:
        return run.decode()
    except UnicodeDecodeError:
        return _UNKNOWN * len(run)
