"""Which characters are letters, numbers and white space to the tokenizers library: asked of the library itself.

Its regular expressions, its splitting of digits and its normal forms follow versions of Unicode of their own, and
Python follows another.
"""

import functools
import unicodedata
from array import array
from collections.abc import Iterator

from tokenizers import Regex, pre_tokenizers
from tokenizers.normalizers import NFC, NFD

from generation.tokenizer_file import CLASS_BLOCK, CLASSES, CODE_POINTS

ASSIGNED = (range(0xD800), range(0xE000, 0x40000), range(0xE0000, 0xF0000))
"""Planes that have characters. All others are empty or for private use, and in no class."""
_BETWEEN = "\U00100000"
"""A character, of none of those planes, that composes with nothing."""


@functools.cache
def classes() -> bytes:
    """A byte of CLASSES for each code point of Unicode."""
    found = bytearray(CODE_POINTS)
    for points in ASSIGNED:
        text = "".join(map(chr, points))
        splitters = {
            "letter": pre_tokenizers.Split(Regex(r"\p{L}+"), "removed", invert=True),
            "number": pre_tokenizers.Split(Regex(r"\p{N}+"), "removed", invert=True),
            "space": pre_tokenizers.Split(Regex(r"\s+"), "removed", invert=True),
        }
        for name, splitter in splitters.items():
            for _, (begin, end) in splitter.pre_tokenize_str(text):
                _mark(found, points, begin, end, name)
        _mark_digits(found, points, text)
        for point in _composed_otherwise(points):
            found[point] |= CLASSES["library_composes"]
    return bytes(found)


def _composed_otherwise(points: range) -> Iterator[int]:
    """Code points that Python does not know or normalises otherwise than the library, and what those are made of.

    A character composes as its decomposition says, and has its place among others by its combining class. Neither
    ever changes for a character that a version of Unicode has, so two versions agree on what both of them have.
    """
    characters = [chr(point) for point in points]
    decomposed = zip(characters, _normalized(NFD(), characters), strict=True)
    for character, theirs in decomposed:
        ours = unicodedata.normalize("NFD", character)
        if ours != theirs:
            yield from map(ord, ours + theirs)
    # A high and a low combining class in front and behind: a mark of any other changes places with one of the two.
    among_marks = [f"a\u0315{character}\u0334" for character in characters]
    for point, ours, theirs in zip(points, among_marks, _normalized(NFC(), among_marks), strict=True):
        if unicodedata.normalize("NFC", ours) != theirs or unicodedata.category(chr(point)) == "Cn":
            yield point


def _normalized(normalizer: NFC | NFD, texts: list[str]) -> list[str]:
    joined: str = normalizer.normalize_str(_BETWEEN.join(texts))
    return joined.split(_BETWEEN)


def _mark(found: bytearray, points: range, begin: int, end: int, name: str) -> None:
    for point in points[begin:end]:
        found[point] |= CLASSES[name]


def _mark_digits(found: bytearray, points: range, text: str) -> None:
    """Runs that are digits and runs that are none alternate."""
    splitter = pre_tokenizers.Digits(individual_digits=False)
    for run, (begin, end) in splitter.pre_tokenize_str(text):
        if len(splitter.pre_tokenize_str(f"0{run[0]}")) == 1:
            _mark(found, points, begin, end, "numeric")


@functools.cache
def tables() -> tuple[bytes, bytes]:
    """`class_blocks` and `classes` of the file: equal blocks are stored once."""
    of_points = classes()
    blocks: dict[bytes, int] = {}
    numbers = array("H")
    for begin in range(0, CODE_POINTS, CLASS_BLOCK):
        numbers.append(blocks.setdefault(of_points[begin : begin + CLASS_BLOCK], len(blocks)))
    return numbers.tobytes(), b"".join(blocks)
