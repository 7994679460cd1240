"""The compiler writes the checkpoint's tokenizer in fewer bytes, and never another tokenizer."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from compiler.tokenizer import compact, require_ids_below, save_vocabulary
from engines.errors import LoadError
from generation.tokenizer import Tokenizer as Reader
from generation.vocabulary import FILE
from tests.checkpoints import VOCAB, write_tokenizer

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
