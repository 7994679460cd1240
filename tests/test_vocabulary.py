"""The bytes of tokens against the tokenizers library: what a text is spelled with, and what tokens decode to."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as RustTokenizer

from generation.constraint import Grammar, GrammarError, Grammars
from generation.tokenizer import Tokenizer
from generation.vocabulary import FILE, Vocabulary

CORPUS = [
    "the quick brown fox jumps over the lazy dog",
    'it said: {"name": "Zoë", "n": 12}',
    "  two  blanks\nand é日",
] * 9
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
ADDED = [AddedToken("<tool>", special=False), AddedToken(" of  é ", special=False), AddedToken("<end>", special=True)]


def byte_level() -> RustTokenizer:
    tokenizer = RustTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    return tokenizer


def llama_2() -> RustTokenizer:
    """A space before every text by a normalizer, bytes for unknown characters, the first space stripped again."""
    tokenizer = RustTokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", *BYTES], max_token_length=8)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _bytes_as_ordinary_tokens(tokenizer)


def metaspace() -> RustTokenizer:
    """The same by a pre-tokenizer, without bytes."""
    tokenizer = RustTokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<unk>"], unk_token="<unk>", initial_alphabet=list(ALPHABET + "▁")
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _bytes_as_ordinary_tokens(tokenizer: RustTokenizer) -> RustTokenizer:
    """SentencePiece's byte tokens are no added ones."""
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in BYTES]
    return RustTokenizer.from_str(json.dumps(content))


ALPHABET = 'abcdefghijklmnopqrstuvwxyz{}":, 0123'
KINDS: dict[str, tuple[Callable[[], RustTokenizer], str]] = {
    "byte level": (byte_level, ALPHABET + "éZ日🦊\n\t\u200d\x00~"),
    "Llama 2": (llama_2, ALPHABET + "éZ日🦊\n\t\u200d~"),
    "Metaspace": (metaspace, ALPHABET),
}
Made = tuple[Tokenizer, Vocabulary, str]


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A tokenizer of each kind with added tokens, its vocabulary, and characters that it knows."""
    make, alphabet = KINDS[request.param]
    tokenizer = make()
    tokenizer.add_tokens(ADDED[:2])
    tokenizer.add_special_tokens(ADDED[2:])
    directory = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(directory / "tokenizer.json"))
    read = Tokenizer(directory)
    vocabulary = read.vocabulary(tokenizer.get_vocab_size(with_added_tokens=True) + 3)
    assert vocabulary is not None
    return read, vocabulary, alphabet


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_the_tokens_of_a_text_have_the_bytes_of_the_text(made: Made, data: st.DataObject) -> None:
    tokenizer, vocabulary, alphabet = made
    parts = st.one_of(st.sampled_from(alphabet), st.sampled_from(["<tool>", " of  é ", " the", "  "]))
    text = "".join(data.draw(st.lists(parts, max_size=20)))
    ids = tokenizer.encode("\n" + text if "\n" in alphabet else text).tolist()
    spelled = b"".join(vocabulary.tokens[token] for token in ids)
    # After added tokens, too, Llama 2's normalizer begins with a space.
    assert spelled.replace(b" ", b"").removeprefix(b"\n") == text.replace(" ", "").encode()
    if not any(name in text for name in ("<tool>", " of  é ")):
        assert spelled.decode().lstrip("\n ") == text.lstrip("\n ")


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_tokens_that_make_whole_characters_decode_to_their_bytes(made: Made, data: st.DataObject) -> None:
    tokenizer, vocabulary, _ = made
    anchor = tokenizer.encode("x")[-1]  # no token after it begins the text
    ids = data.draw(st.lists(st.integers(0, len(vocabulary.tokens) - 4), max_size=12))
    visible = [token for token in ids if token not in vocabulary.special]
    try:
        text = b"".join(vocabulary.tokens[token] for token in [anchor, *visible]).decode()
    except UnicodeDecodeError:
        return
    assert tokenizer.decode([int(anchor), *ids]) == text.lstrip(" ")


def test_what_the_tokenizer_has_no_token_for_is_empty_and_what_a_text_leaves_out_is_special(made: Made) -> None:
    tokenizer, vocabulary, _ = made
    assert vocabulary.tokens[-3:] == [b"", b"", b""]
    end = tokenizer.token_id("<end>")
    assert end in vocabulary.special
    assert tokenizer.token_id("<tool>") not in vocabulary.special


def test_a_saved_vocabulary_is_the_same(made: Made, tmp_path: Path) -> None:
    tokenizer, vocabulary, _ = made
    (tmp_path / "tokenizer.json").write_bytes((tokenizer._directory / "tokenizer.json").read_bytes())
    vocabulary.save(tmp_path / FILE)
    size = len(vocabulary.tokens)
    assert Tokenizer(tmp_path).vocabulary(size) == vocabulary
    (tmp_path / FILE).write_bytes(np.full(size, 2, "<u4").tobytes() + b"ab")
    read = Tokenizer(tmp_path).vocabulary(size)
    assert read is not None
    assert read.tokens == [b"ab", *[b""] * (size - 1)], "the file is what is read"


def test_forced_text_is_spelled_as_the_tokenizer_spells_it(made: Made) -> None:
    tokenizer, vocabulary, _ = made
    end = tokenizer.token_id("<end>")
    assert end is not None
    text = 'the quick fox: {"n": 12}  the lazy dog'
    constraint = Grammars(tokenizer, len(vocabulary.tokens), [end]).compiled(Grammar("regex", _escaped(text))).begin()
    forced = constraint.take_forced(31)
    spelled = b"".join(vocabulary.tokens[token] for token in forced)
    assert text.encode().startswith(spelled)
    assert len(spelled) > len(text) // 2
    own = tokenizer.encode(text).tolist()
    # Without the space that some add to a text its first word may take more tokens; no other does.
    begin = next(number for number in range(1, 8) if forced[number] in own)
    assert forced[begin:] == own[own.index(forced[begin]) :][: len(forced) - begin]


def _escaped(text: str) -> str:
    return "".join(f"\\{character}" if character in '{}"' else character for character in text)


def test_a_tokenizer_whose_pieces_are_no_text_is_refused_in_words(tmp_path: Path) -> None:
    tokenizer = RustTokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(GrammarError, match="which bytes its tokens stand for"):
        Grammars(Tokenizer(tmp_path), 2, [1]).compiled(Grammar("regex", "a"))
