"""The compiler writes the checkpoint's tokenizer as tables or in fewer bytes, and never another tokenizer."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from compiler import codegen
from compiler import tokenizer as of_compiler
from compiler.tokenizer import compact, require_ids_below, save_vocabulary, store
from compiler.tokenizer_proof import difference
from compiler.tokenizer_shape import NotMappedError, Shape, shape_of
from compiler.tokenizer_tables import tables
from engines.cpu_levels import levels_here
from engines.errors import LoadError
from generation import tokenizer_file
from generation.mapped_codec import LIBRARY, MappedCodec, open_library
from generation.tokenizer import Tokenizer as Reader
from generation.vocabulary import FILE
from tests.checkpoints import VOCAB, write_tokenizer
from tests.tokenizer_families import FAMILIES

TEXT = "The quick brown fox\n jumps over 'the' lazy dog — déjà vu 🐐"


def read(path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(path))


def test_a_compacted_tokenizer_is_smaller_and_the_same(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    source, target = tmp_path / "tokenizer.json", tmp_path / "compact.json"
    assert isinstance(json.loads(source.read_bytes())["model"]["merges"][0], list)
    compact(source, target)
    assert target.stat().st_size < source.stat().st_size / 2
    assert isinstance(json.loads(target.read_bytes())["model"]["merges"][0], str)
    assert read(target).to_str() == read(source).to_str()
    assert read(target).encode(TEXT).ids == read(source).encode(TEXT).ids


def test_merges_of_pieces_with_spaces_stay_pairs(tmp_path: Path) -> None:
    source, target = tmp_path / "tokenizer.json", tmp_path / "compact.json"
    Tokenizer(models.BPE(vocab={"a": 0, " b": 1, "a b": 2}, merges=[("a", " b")])).save(str(source))
    compact(source, target)
    assert json.loads(target.read_bytes())["model"]["merges"] == [["a", " b"]]
    assert read(target).to_str() == read(source).to_str()


def test_a_tokenizer_without_merges_is_written_too(tmp_path: Path) -> None:
    source, target = tmp_path / "tokenizer.json", tmp_path / "compact.json"
    Tokenizer(models.Unigram([("<unk>", 0.0), ("fox", -1.0)], unk_id=0)).save(str(source))
    compact(source, target)
    assert read(target).to_str() == read(source).to_str()


def test_ids_beyond_the_embeddings_are_refused_before_anything_is_compiled(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    require_ids_below(VOCAB, tmp_path)
    with pytest.raises(LoadError, match="use the tokenizer the model was trained with"):
        require_ids_below(100, tmp_path)


def test_the_bytes_of_the_tokens_are_saved_where_their_pieces_say_them(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    expected = Reader(tmp_path).vocabulary(VOCAB + 5)
    save_vocabulary(tmp_path, VOCAB + 5)
    assert (tmp_path / FILE).is_file()
    assert Reader(tmp_path).vocabulary(VOCAB + 5) == expected
    (tmp_path / FILE).unlink()
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    save_vocabulary(tmp_path, 1)
    assert not (tmp_path / FILE).exists()


def test_a_tokenizer_that_would_be_read_differently_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "tokenizer.json", tmp_path / "compact.json"
    write_tokenizer(tmp_path)
    another = Tokenizer(models.BPE(vocab={"a": 0}, merges=[])).to_str()
    monkeypatch.setattr("compiler.tokenizer.json.dumps", lambda *_, **__: another)
    compact(source, target)
    assert target.read_bytes() == source.read_bytes()


LEVEL = levels_here()[0]


def test_a_known_tokenizer_becomes_tables_and_nothing_else(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    target = tmp_path / "artifact"
    target.mkdir()
    assert store(tmp_path, target, LEVEL, VOCAB) is None
    assert {path.name for path in target.iterdir()} == {"tokenizer.bin", "tokenizer.so"}
    assert Reader(target).encode(TEXT).tolist() == Reader(tmp_path).encode(TEXT).tolist()


def test_any_other_tokenizer_is_left_to_the_library_and_a_sentence_says_why(tmp_path: Path) -> None:
    Tokenizer(models.Unigram([("<unk>", 0.0), ("fox", -1.0)], unk_id=0)).save(str(tmp_path / "tokenizer.json"))
    target = tmp_path / "artifact"
    target.mkdir()
    said = store(tmp_path, target, LEVEL, 2)
    assert said == (
        "Cold starts read this tokenizer with the tokenizers library, which takes longer: "
        "its decoder is none that there are tables for."
    )
    assert [path.name for path in target.iterdir()] == ["tokenizer.json"]
    assert Reader(target).encode("fox").tolist() == [1]


def test_tables_that_differ_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tokenizer(tmp_path)
    target = tmp_path / "artifact"
    target.mkdir()
    # of_compiler keeps what it has proved
    (tmp_path / "tokenizer.json").write_text((tmp_path / "tokenizer.json").read_text() + "\n")
    monkeypatch.setattr(of_compiler, "shape_of", lambda tokenizer: replace(shape_of(tokenizer), merges={}))
    said = store(tmp_path, target, LEVEL, VOCAB)
    assert said is not None
    assert said.endswith(": its tables encode a text otherwise than the library.")
    assert {path.name for path in target.iterdir()} == {"tokenizer.json", "vocabulary.bin"}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_proof_finds_nothing_in_right_tables(family: str, tmp_path: Path) -> None:
    tokenizer = FAMILIES[family]()
    assert _difference(tokenizer, shape_of(tokenizer), tmp_path) is None


def _half_of_the_merges(shape: Shape) -> dict[tuple[int, int], tuple[int, int]]:
    return dict(list(shape.merges.items())[::2])


def _in_another_order(shape: Shape) -> dict[tuple[int, int], tuple[int, int]]:
    return {pair: (len(shape.merges) - rank, token) for pair, (rank, token) in shape.merges.items()}


WRONG: dict[str, tuple[str, Callable[[Shape], Shape]]] = {
    "digits": ("GPT-2", lambda shape: replace(shape, split="digits_gpt_2")),
    "numbers": ("Llama 3", lambda shape: replace(shape, split="qwen_2")),
    "no first token": ("Llama 3", lambda shape: replace(shape, before=[])),
    "not composed": ("Qwen2", lambda shape: replace(shape, normalizer="none")),
    "merges less": ("Qwen2", lambda shape: replace(shape, merges=_half_of_the_merges(shape))),
    "another order": ("GPT-2", lambda shape: replace(shape, merges=_in_another_order(shape))),
    "no prefix": ("Llama 2", lambda shape: replace(shape, normalizer="spaces")),
    "not stripped": ("Llama 2", lambda shape: replace(shape, decoder="byte_fallback")),
    "an added token less": ("Gemma", lambda shape: replace(shape, added=shape.added[:-1])),
    "none special": ("GPT-2", lambda s: replace(s, added=[replace(each, special=False) for each in s.added])),
    "all raw": ("Qwen2", lambda s: replace(s, added=[replace(each, normalized=False) for each in s.added])),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_proof_finds_what_is_wrong(wrong: str, tmp_path: Path) -> None:
    family, change = WRONG[wrong]
    tokenizer = FAMILIES[family]()
    assert _difference(tokenizer, change(shape_of(tokenizer)), tmp_path) is not None


def _difference(tokenizer: Tokenizer, shape: Shape, directory: Path) -> str | None:
    (directory / LIBRARY).write_bytes(codegen.build_tokenizer(LEVEL))
    (directory / tokenizer_file.FILE).write_bytes(tables(shape, open_library(directory / LIBRARY)))
    return difference(tokenizer, MappedCodec(directory))


Content = dict[str, Any]
REFUSED: dict[str, tuple[str, Callable[[Content], object], str]] = {
    "another normalizer": ("GPT-2", lambda c: c.update(normalizer={"type": "NFKC"}), "its normalizer is none"),
    "a normalizer of the other kind": (
        "GPT-2",
        lambda c: c.update(normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "▁"}),
        "its normalizer is none",
    ),
    "a prefix": ("GPT-2", lambda c: c["pre_tokenizer"].update(add_prefix_space=True), "its pre-tokenizer is none"),
    "nearly its expression": (
        "Qwen2",
        lambda c: c["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(
            Regex=r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"
        ),
        "its pre-tokenizer is none",
    ),
    "no pre-tokenizer": ("GPT-2", lambda c: c.update(pre_tokenizer=None), "its pre-tokenizer is none"),
    "words": ("Gemma", lambda c: c.update(pre_tokenizer={"type": "Whitespace"}), "its pre-tokenizer is none"),
    "dropout": ("GPT-2", lambda c: c["model"].update(dropout=0.1), "its merges have dropout"),
    "no fallback": ("Gemma", lambda c: c["model"].update(byte_fallback=False), "it has no bytes"),
    "a byte less": (
        "Gemma",
        lambda c: c["model"]["vocab"].update({"no byte": c["model"]["vocab"].pop("<0x41>")}),
        "it has no pieces for some bytes",
    ),
    "a token that strips": ("GPT-2", lambda c: c["added_tokens"][0].update(lstrip=True), "it has added tokens that"),
    "a long token": ("GPT-2", lambda c: c["added_tokens"][0].update(content="x" * 300), "its added tokens are"),
    "a piece of no bytes": ("GPT-2", lambda c: c["model"]["vocab"].update({"a b": 9_999}), "it has pieces that"),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_what_there_are_no_tables_for_is_named(refused: str) -> None:
    family, change, says = REFUSED[refused]
    content = json.loads(FAMILIES[family]().to_str())
    change(content)
    with pytest.raises(NotMappedError, match=says):
        shape_of(Tokenizer.from_str(json.dumps(content)))
