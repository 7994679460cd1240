"""Tokenizers in tables against the tokenizers library: the same ids and the same texts, and files that are altered."""

import ctypes
import itertools
import json
import random
import shutil
import subprocess
import sys
import unicodedata
from array import array
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models, pre_tokenizers

from compiler import character_classes
from engines.errors import LoadError
from generation.mapped_codec import LIBRARY, MappedCodec, open_library
from generation.parsed_codec import ParsedCodec
from generation.tokenizer import Detokenizer, Tokenizer
from generation.tokenizer_file import CODE_POINTS, FILE, HEADER_BYTES
from settings import ROOT
from tests.tokenizer_families import FAMILIES, write_tables

PARTS = [
    *"abtheTHE 's'LL'ſ01239½٣²_-!?.,:(){}\"\n\r\t\x00\x85\xa0\u2003\u3000éßñ日本語कि한🦊\u200d\ufffd▁~",
    *["e\u0301", "\u0301", "\u0327", "\u1100\u1161\u11a8", "  ", "\n\n", "\n\n\n", "▁▁▁", " the", " quick", "doesn't"],
    *[" unmerged", "<tool>", "<tool_call>", "<tool_cal", "<|im_start|>", "<|im_end|>", "<s>", "</s>", " x", "日本"],
    *["\u08cf", "\u0378", "\U00100000", "\U0001f1fa", "\r\n", "<0x41>", "12345"],
]  # fmt: skip
TEXTS = st.one_of(st.lists(st.sampled_from(PARTS), max_size=30).map("".join), st.text(max_size=30))


class Made:
    """A tokenizer of a family: the library's own, its tables, and both as the rest of the project uses them."""

    def __init__(self, family: str, directory: Path) -> None:
        self.reference = FAMILIES[family]()
        (directory / "library").mkdir()
        (directory / "tables").mkdir()
        self.reference.save(str(directory / "library" / "tokenizer.json"))
        self.mapped = write_tables(self.reference, directory / "tables")
        self.codec = ParsedCodec(directory / "library" / "tokenizer.json")
        self.both = [Tokenizer(directory / "library"), Tokenizer(directory / "tables")]
        self.directory = directory / "tables"


@pytest.fixture(scope="module", params=FAMILIES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(request.param, tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made("Qwen2", tmp_path_factory.mktemp("qwen"))


@given(text=TEXTS, special=st.booleans())
@settings(max_examples=400, deadline=None)
def test_a_text_has_the_library_s_ids(made: Made, text: str, special: bool) -> None:
    expected = made.reference.encode(text, add_special_tokens=special).ids
    assert made.mapped.encode(text, add_special_tokens=special).tolist() == expected


@pytest.mark.parametrize(
    "text",
    [
        *[
            "'ſz",
            "'sun",
            "'Sun",
            " 'LLx",
            "12345",
            " 12 345",
            "a1b22c333",
            "½٣٤",
            "x  \n\n  y",
            "\n  \n x",
            "  !!\n\n x",
        ],
        *[
            "!\r\n\r\n\t\tx",
            "<tool>",
            "<tool",
            "<tool_call>",
            "<tool_cal",
            " unmerged",
            "unmerged",
            "\u2003\u2003x",
            "   x  ",
        ],
    ],
)
def test_a_text_where_expressions_differ_has_the_library_s_ids(made: Made, text: str) -> None:
    for beside in (text, f"x{text}x", f"{text}{text}"):
        assert (
            made.mapped.encode(beside, add_special_tokens=False).tolist()
            == made.reference.encode(beside, add_special_tokens=False).ids
        )


@given(ids=st.lists(st.one_of(st.integers(0, 720), st.just(2**32 - 1)), max_size=20), skip=st.booleans())
@settings(max_examples=400, deadline=None)
def test_ids_have_the_library_s_text(made: Made, ids: list[int], skip: bool) -> None:
    assert made.mapped.decode(ids, skip_special_tokens=skip) == made.reference.decode(ids, skip_special_tokens=skip)


@given(ids=st.lists(st.integers(0, 710), max_size=30), prompt=st.lists(st.integers(0, 710), max_size=9))
@settings(max_examples=100, deadline=None)
def test_a_text_arrives_in_the_same_pieces(made: Made, ids: list[int], prompt: list[int]) -> None:
    library, mapped = (Detokenizer(each, np.array(prompt, np.int64)) for each in made.both)
    assert [library.add(token) for token in ids] == [mapped.add(token) for token in ids]


def test_tokens_have_the_same_names_and_bytes(made: Made) -> None:
    names = made.reference.get_vocab(with_added_tokens=True)
    for name, token in names.items():
        assert made.mapped.token_id(name) == token
        assert made.mapped.token_id(name + "?") == made.codec.token_id(name + "?")
        assert made.mapped.is_special(token) == made.codec.is_special(token)
        assert made.mapped.token_bytes(token) == made.codec.token_bytes(token)
    assert made.mapped.token_bytes(10**6) == made.codec.token_bytes(10**6) == b""
    assert not made.mapped.is_special(10**6)
    assert (made.mapped.longest, made.mapped.largest) == (made.codec.longest, made.codec.largest)
    assert made.mapped.vocabulary(800) == made.codec.vocabulary(800)


@pytest.mark.parametrize("ids", [[-1], [2**32], [1.5]])
def test_numbers_that_are_no_ids_raise_what_they_raise_in_the_library(made: Made, ids: list[int]) -> None:
    with pytest.raises((OverflowError, TypeError)) as library:
        made.reference.decode(ids)
    with pytest.raises(library.type):
        made.mapped.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("text", ["a", "the quick ", " ", "\n", "1", "é", "日", "\u0301", "'s", "<tool>", "a\n  "])
def test_a_long_text_has_the_library_s_ids(made: Made, text: str) -> None:
    long = text * (60_000 // len(text))
    assert (
        made.mapped.encode(long, add_special_tokens=False).tolist()
        == made.reference.encode(long, add_special_tokens=False).ids
    )


@pytest.mark.parametrize("text", ["k<|im_end|>", "k<", "kk<|im_end|>k<k", "k"])
def test_an_added_token_ends_before_one_that_is_matched_first(tmp_path: Path, text: str) -> None:
    library = FAMILIES["GPT-2"]()
    library.add_tokens(["k<"])
    mapped = write_tables(library, tmp_path)
    assert mapped.encode(text, add_special_tokens=False).tolist() == library.encode(text).ids


@pytest.mark.parametrize("family", ["Llama 3", "Qwen2"])
def test_a_line_s_end_is_no_part_of_the_word_behind_it(family: str, tmp_path: Path) -> None:
    content = json.loads(FAMILIES[family]().to_str())
    content |= {"added_tokens": [], "post_processor": None}
    content["model"]["vocab"]["Ċa"] = len(content["model"]["vocab"])
    content["model"]["merges"].append(["Ċ", "a"])
    library = RustTokenizer.from_str(json.dumps(content))
    mapped = write_tables(library, tmp_path)
    for text in ("\na", "x\na", "!\na"):
        assert (
            mapped.encode(text, add_special_tokens=False).tolist() == library.encode(text, add_special_tokens=False).ids
        )


def test_merges_that_compete_come_in_the_library_s_order(tmp_path: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("b", "c"), ("a", "b"), ("bc", "d"), ("a", "bc"), ("d", "a"), ("da", "b"), ("c", "d"), ("ab", "cd")]
    pieces = [*alphabet, *dict.fromkeys(left + right for left, right in merges)]
    library = RustTokenizer(models.BPE(vocab={piece: token for token, piece in enumerate(pieces)}, merges=merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    mapped = write_tables(library, tmp_path)
    for length in range(7):
        for letters in itertools.product("abcd", repeat=length):
            text = "".join(letters)
            assert mapped.encode(text, add_special_tokens=False).tolist() == library.encode(text).ids, text


def test_hash_tables_go_on_at_their_first_slot_and_not_behind_the_last(qwen: Made) -> None:
    native, size, behind = open_library(qwen.directory / LIBRARY), 50, 8
    empty = 2**32 - 1

    def address(numbers: "array[int]") -> ctypes.c_void_p:
        return ctypes.c_void_p(numbers.buffer_info()[0])

    texts = [str(number).encode() for number in range(size - 1)]
    ids, ends = array("I", range(size - 1)), array("I", [0, *itertools.accumulate(map(len, texts))])
    words = array("I", [empty] * (size + behind))
    count, slots = ctypes.c_int64(size - 1), ctypes.c_int64(size)
    assert (
        native.tokenizer_fill_vocabulary(address(words), slots, address(ids), count, address(ends), b"".join(texts))
        == 0
    )
    assert words[size:].tolist() == [empty] * behind
    assert sorted(words[:size]) == [*ids, empty]
    merges = array("I", (number for i in range(size - 1) for number in (7 * i, i, i, i)))
    table = array("I", [empty] * 4 * (size + behind))
    assert native.tokenizer_fill_merges(address(table), slots, address(merges), count) == 0
    assert table[4 * size :].tolist() == [empty] * 4 * behind
    assert sorted(table[3 : 4 * size : 4]) == [*ids, empty]


def test_a_word_of_any_length_is_encoded(made: Made) -> None:
    """A time that grew with the square of its length would be minutes."""
    word = "".join(random.Random(0).choices("thequickbrownfox", k=100_000))
    ids = made.mapped.encode(word, add_special_tokens=False).tolist()
    assert made.mapped.decode(ids, skip_special_tokens=True).strip() == word


@pytest.mark.parametrize(
    "text", ["<tool>\u0338", "e\u0301<|im_end|>\u0301e", "\u0301", "a\u0327\u0301 e\u0301", "\u1100\u1161"]
)
def test_a_text_is_composed_between_added_tokens(qwen: Made, text: str) -> None:
    assert unicodedata.normalize("NFC", text) != text or text == "\u0301"
    assert qwen.mapped.encode(text, add_special_tokens=False).tolist() == qwen.reference.encode(text).ids


def test_only_characters_that_python_may_compose_otherwise_import_the_library(qwen: Made) -> None:
    code = """
import sys
from pathlib import Path
from generation.mapped_codec import MappedCodec
codec = MappedCodec(Path(sys.argv[1]))
codec.encode("cafe\\u0301 हिन्दी ไทย 한국어", add_special_tokens=True)
assert "tokenizers" not in sys.modules
codec.encode("\\u0378", add_special_tokens=True)
assert "tokenizers" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(qwen.directory)], cwd=ROOT, check=True)


def test_classes_of_characters_are_the_library_s() -> None:
    """Asked one by one, where the compiler asks for runs."""
    from tokenizers import Regex, pre_tokenizers

    found = character_classes.classes()
    assert len(found) == CODE_POINTS
    for point in [*range(0x3400), *random.Random(0).sample(range(0xE000, CODE_POINTS), 5_000)]:
        if not 0xD800 <= point < 0xE000:
            character = chr(point)
            for expression, bit in ((r"\p{L}", 1), (r"\p{N}", 2), (r"\s", 4)):
                removed = pre_tokenizers.Split(Regex(expression), "removed").pre_tokenize_str(character)
                assert (removed == []) is bool(found[point] & bit), (hex(point), expression)
            alone = len(pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str(f"0{character}a")) == 3
            assert alone is bool(found[point] & 8), hex(point)


@pytest.fixture
def copied(qwen: Made, tmp_path: Path) -> Path:
    return Path(shutil.copytree(qwen.directory, tmp_path / "copied"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: b"", "cannot be read"),
        (lambda content: content[:200], "cannot be read"),
        (lambda content: content[:-1], "is damaged"),
        (lambda content: b"x" + content[1:], "is not a tokenizer of version 1"),
        (lambda content: content[:8] + b"\x02" + content[9:], "is not a tokenizer of version 1"),
        (lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:], "is damaged"),
    ],
)
def test_an_altered_file_is_told_in_one_sentence(copied: Path, change: object, says: str) -> None:
    assert callable(change)
    (copied / FILE).write_bytes(change((copied / FILE).read_bytes()))
    with pytest.raises(
        LoadError, match=rf"tokenizer\.bin {says}.*; compile the checkpoint again with `python -m compiler`"
    ):
        MappedCodec(copied)


def test_a_library_that_is_none_is_told_in_one_sentence(copied: Path) -> None:
    (copied / LIBRARY).write_bytes(b"\0" * 100)
    with pytest.raises(LoadError, match=r"tokenizer\.so cannot be loaded"):
        MappedCodec(copied)


def test_altered_tables_give_other_ids_or_one_sentence_and_never_more(made: Made, tmp_path: Path) -> None:
    copied = shutil.copytree(made.directory, tmp_path / "copied")
    code = """
import random, sys
from pathlib import Path
from engines.errors import LoadError
from generation.mapped_codec import MappedCodec
directory, draw = Path(sys.argv[1]), random.Random(int(sys.argv[3]))
file = directory / "tokenizer.bin"
content = file.read_bytes()
for _ in range(60):
    altered = bytearray(content)
    for _ in range(draw.choice([10, 1000, 20_000])):
        altered[draw.randrange(int(sys.argv[2]), len(content))] = draw.choice([0, 255, draw.randrange(256)])
    file.unlink()  # the mapping keeps the old one
    file.write_bytes(altered)
    try:
        codec = MappedCodec(directory)
        ids = codec.encode("the <tool> Zo\\u0308 日本語 12 it's\\n\\n  x <|im_end|>", add_special_tokens=True)
        assert all(0 <= token <= codec.largest for token in ids)
    except (LoadError, RuntimeError) as error:
        assert str(error) == f"{file} is damaged; compile the checkpoint again with `python -m compiler`."
        continue
    codec.decode(list(range(720)), skip_special_tokens=False)
    codec.token_id("<tool>"), codec.token_id("the"), codec.vocabulary(800)
"""
    command = [sys.executable, "-c", code, str(copied), str(HEADER_BYTES), "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_tokenizer_without_tables_is_the_library_s(tmp_path: Path) -> None:
    RustTokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer(tmp_path).encode("b").tolist() == [1]
