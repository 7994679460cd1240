"""A tokenizer's tables as one file: `generation/tokenizer_file.py` says what is in it."""

import ctypes
import unicodedata
from array import array
from collections.abc import Iterable
from itertools import accumulate

from compiler import character_classes
from compiler.tokenizer_shape import AddedToken, Shape
from generation.tokenizer_file import (
    BYTE,
    DECODERS,
    HEADER_BYTES,
    KNOWN,
    NORMALIZERS,
    SECTIONS,
    SPECIAL,
    SPLITS,
    header,
    unicode_version,
)


def tables(shape: Shape, native: ctypes.CDLL) -> bytes:
    """The file of a tokenizer, whose hash tables `native` fills."""
    names = {**{token.name: token.id for token in shape.added}, **shape.pieces}
    count = max(names.values()) + 1
    pieces, kinds = [b""] * count, bytearray(count)
    for piece, token in [*shape.pieces.items(), *((token.piece, token.id) for token in shape.added)]:
        pieces[token] = shape.bytes_of(piece)
        kinds[token] = KNOWN | BYTE * shape.is_byte(piece)
    for added in shape.added:
        kinds[added.id] |= SPECIAL * added.special
    ends = array("I", [0, *accumulate(map(len, pieces))])
    joined = b"".join(pieces)
    words = [token for piece, token in shape.pieces.items() if not shape.is_byte(piece)]
    named = {piece: token for piece, token in shape.pieces.items() if shape.is_byte(piece)}
    named |= {token.name: token.id for token in shape.added}
    class_blocks, classes = character_classes.tables()
    sections = {
        "ends": ends.tobytes(),
        "bytes": joined,
        "kinds": bytes(kinds),
        "vocabulary": _vocabulary(native, words, ends, joined),
        "merges": _merges(native, shape),
        "of_bytes": array("I", (token for _, token in sorted(shape.byte_ids.items()))).tobytes(),
        "class_blocks": class_blocks,
        "classes": classes,
        **_found("raw", [token for token in shape.added if not token.normalized]),
        **_found("normalized", [token for token in shape.added if token.normalized]),
        **_entries("named", [(name.encode(), token) for name, token in named.items()]),
        "before": array("I", shape.before).tobytes(),
        "after": array("I", shape.after).tobytes(),
    }
    options = {
        "split": SPLITS.index(shape.split),
        "normalizer": NORMALIZERS.index(shape.normalizer),
        "decoder": DECODERS.index(shape.decoder),
        "ignore_merges": int(shape.ignore_merges),
        "longest_bytes": max(map(len, pieces)),
        "unicode": unicode_version(unicodedata.unidata_version),
        "longest_characters": max(map(len, names)),
    }
    return _joined(options, sections)


def _joined(options: dict[str, int], sections: dict[str, bytes]) -> bytes:
    """All sections behind their header, each at a multiple of 64 bytes."""
    places, content = {}, bytearray(HEADER_BYTES)
    for name in SECTIONS:
        content += bytes(-len(content) % 64)
        places[name] = (len(content), len(sections[name]))
        content += sections[name]
    content[:HEADER_BYTES] = header(options, places, len(content))
    return bytes(content)


def _vocabulary(native: ctypes.CDLL, ids: list[int], ends: "array[int]", joined: bytes) -> bytes:
    slots = _empty(len(ids), 1)
    numbers = array("I", ids)
    native.tokenizer_fill_vocabulary(
        _address(slots), ctypes.c_int64(len(slots)), _address(numbers), ctypes.c_int64(len(ids)), _address(ends), joined
    )
    return slots.tobytes()


def _merges(native: ctypes.CDLL, shape: Shape) -> bytes:
    slots = _empty(len(shape.merges), 4)
    numbers = array("I", (number for pair, merge in shape.merges.items() for number in (*pair, *merge)))
    native.tokenizer_fill_merges(
        _address(slots), ctypes.c_int64(len(slots) // 4), _address(numbers), ctypes.c_int64(len(shape.merges))
    )
    return slots.tobytes()


def _empty(entries: int, numbers: int) -> "array[int]":
    """Room for half as many entries again, of so many numbers each."""
    return array("I", b"\xff" * (4 * numbers * (entries * 3 // 2 + 1)))


def _address(numbers: "array[int]") -> ctypes.c_void_p:
    return ctypes.c_void_p(numbers.buffer_info()[0])


def _found(name: str, tokens: Iterable[AddedToken]) -> dict[str, bytes]:
    """The sections of tokens that are looked for together."""
    texts = sorted((token.text.encode(), token.id) for token in tokens)
    firsts = array("I", (sum(text[0] < byte for text, _ in texts) for byte in range(257)))
    return {**_entries(name, texts), f"{name}_first": firsts.tobytes()}


def _entries(name: str, texts: Iterable[tuple[bytes, int]]) -> dict[str, bytes]:
    ordered = sorted(texts)
    offsets = accumulate((len(text) for text, _ in ordered), initial=0)
    entries = (
        number for offset, (text, token) in zip(offsets, ordered, strict=False) for number in (offset, len(text), token)
    )
    return {f"{name}_entries": array("I", entries).tobytes(), f"{name}_texts": b"".join(text for text, _ in ordered)}
