"""A compiled artifact's tokenizer: one file of tables that encoding and decoding use in place.

The compiler writes it, where its ids are those of the tokenizers library (`compiler/tokenizer_proof.py`). Little
endian. A header says where the sections lie; opening a file reads nothing else, whatever the vocabulary's size.
"""

import mmap
import struct
import zlib
from pathlib import Path

from engines.errors import LoadError
from engines.memory import address_of

FILE = "tokenizer.bin"
VERSION = 1
MAGIC = b"tokenize"
REMAKE = "compile the checkpoint again with `python -m compiler`"

SECTIONS = (
    "ends",  # u32 [T + 1]: where each token's bytes end, after a 0
    "bytes",  # those of all tokens
    "kinds",  # u8 [T]: KNOWN, SPECIAL, BYTE
    "vocabulary",  # u32, hash table of the tokens that words are made of, by their bytes
    "merges",  # u32 [4], hash table: left, right, rank, id
    "of_bytes",  # u32 [256]: the token that stands for each byte
    "class_blocks",  # u16: which block of classes each CLASS_BLOCK code points have
    "classes",  # u8: of CLASSES
    # Added tokens that are matched before a text is normalised, and after: offset, size and id, u32 [3], in the order
    # of their texts; u32 [257] the first of them that begins with each byte; the texts.
    "raw_entries",
    "raw_first",
    "raw_texts",
    "normalized_entries",
    "normalized_first",
    "normalized_texts",
    "named_entries",  # tokens that are no pieces of words, by their names, as above
    "named_texts",
    "before",  # u32: special tokens that a text begins with
    "after",  # u32: and ends with
)
OPTIONS = (
    "split",  # of SPLITS
    "normalizer",  # of NORMALIZERS
    "decoder",  # of DECODERS
    "ignore_merges",  # 1: a word that is a token is not put together by merges
    "longest_bytes",  # of a token
    "unicode",  # version of Unicode, as `unicode_version` gives it, that the compiler's Python had
    "longest_characters",  # of an entry of the vocabulary, as tokenizer.json has it
)
SPLITS = ("none", "gpt_2", "digits_gpt_2", "llama_3", "qwen_2")
NORMALIZERS = ("none", "nfc", "spaces", "prefixed_spaces", "metaspace", "metaspace_first", "metaspace_always")
"""What is done to a text. Metaspaces change what lies between all added tokens, the others what lies between those that
are matched before a text is normalised."""
DECODERS = ("byte_level", "byte_fallback", "byte_fallback_stripped")
CLASSES = {"letter": 1, "number": 2, "space": 4, "numeric": 8, "library_composes": 16}
"""Of characters: what \\p{L}, \\p{N} and \\s match, what the library splits off as a digit, and what Python may
normalise otherwise than the library."""
KNOWN, SPECIAL, BYTE = 1, 2, 4
"""Kinds of tokens: one there is; one that decoding can leave out; one named `<0x..>`, which stands for a byte."""
CLASS_BLOCK = 128
CODE_POINTS = 0x110000

_HEADER = struct.Struct(f"<8sIIQ{len(OPTIONS)}Q{2 * len(SECTIONS)}Q")
_CHECKED = struct.calcsize("<8sII")
HEADER_BYTES = _HEADER.size
MACROS = [
    f"-D{name}={value}"
    for name, value in {
        "TOKENIZER_VERSION": VERSION,
        "SECTION_COUNT": len(SECTIONS),
        "OPTION_COUNT": len(OPTIONS),
        "CLASS_BLOCK": CLASS_BLOCK,
        **{f"{kind}_{name.upper()}": value for kind, names in (
            ("SECTION", SECTIONS), ("OPTION", OPTIONS), ("SPLIT", SPLITS), ("NORMALIZER", NORMALIZERS),
            ("DECODER", DECODERS),
        ) for value, name in enumerate(names)},
        **{f"CLASS_{name.upper()}": value for name, value in CLASSES.items()},
    }.items()
]  # fmt: skip
"""The names above for the C++ compiler: engines/native/tokenizer.cpp reads the file too."""


def unicode_version(text: str) -> int:
    """A version such as 14.0.0 as one number, greater for a later one."""
    major, minor, update = map(int, text.split("."))
    return major << 16 | minor << 8 | update


def header(options: dict[str, int], places: dict[str, tuple[int, int]], size: int) -> bytes:
    """The first bytes of a file of `size` bytes whose sections lie at `places`: offset and bytes."""
    numbers = [number for name in SECTIONS for number in places[name]]
    checked = _HEADER.pack(MAGIC, VERSION, 0, size, *(options[name] for name in OPTIONS), *numbers)[_CHECKED:]
    return struct.pack("<8sII", MAGIC, VERSION, zlib.crc32(checked)) + checked


class TokenizerFile:
    """An open file. Immutable; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """Raises LoadError for a file that is none, of another version, cut short or with an altered header."""
        self.damage = f"{path} is damaged; {REMAKE}."
        """What to say when the file turns out to be altered."""
        try:
            with path.open("rb") as file:
                self.mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            magic, version, checksum, size, *numbers = _HEADER.unpack_from(self.mapping)
        except (OSError, ValueError, struct.error) as error:
            raise LoadError(f"{path} cannot be read ({error}); {REMAKE}.") from None
        if magic != MAGIC or version != VERSION:
            raise LoadError(f"{path} is not a tokenizer of version {VERSION}, which this code reads; {REMAKE}.")
        self.options = dict(zip(OPTIONS, numbers, strict=False))
        self._places = dict(zip(SECTIONS, zip(*[iter(numbers[len(OPTIONS) :])] * 2, strict=True), strict=True))
        self.tokens = self._places["kinds"][1]
        """How many there are: one more than the largest id."""
        if zlib.crc32(self.mapping[_CHECKED:HEADER_BYTES]) != checksum or not self._fits(size):
            raise LoadError(self.damage)
        self.address = address_of(self.mapping)
        self._class_blocks = self.section("class_blocks").cast("H")
        self._classes = self.section("classes")

    def section(self, name: str) -> memoryview:
        """The bytes of a section."""
        offset, size = self._places[name]
        return memoryview(self.mapping)[offset : offset + size]

    def numbers(self, name: str) -> memoryview:
        """The 32-bit numbers of a section."""
        return self.section(name).cast("I")

    def class_of(self, character: str) -> int:
        """The CLASSES of a character."""
        block, place = divmod(ord(character), CLASS_BLOCK)
        place += self._class_blocks[block] * CLASS_BLOCK
        return self._classes[place] if place < len(self._classes) else 0

    def _fits(self, size: int) -> bool:
        """Whether all sections lie in the file and are as large as native code takes for granted."""
        places = self._places
        tokens = places["kinds"][1]
        expected = {
            "class_blocks": 2 * CODE_POINTS // CLASS_BLOCK,
            "ends": 4 * tokens + 4,
            "of_bytes": 1024,
            "raw_first": 1028,
            "normalized_first": 1028,
        }
        return (
            size == len(self.mapping)
            and all(offset % 8 == 0 and HEADER_BYTES <= offset <= offset + n <= size for offset, n in places.values())
            and all(places[name][1] == n for name, n in expected.items())
            and all(places[name][1] % 4 == 0 for name in ("vocabulary", "merges", "named_entries", "before", "after"))
            and all(token < self.tokens for name in ("before", "after") for token in self.numbers(name))
        )
