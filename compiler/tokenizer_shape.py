"""tokenizer.json -> what of it `generation/tokenizer_file.py` has tables for; exactly, or not at all."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from generation.vocabulary import REPLACED_SPACE, byte_level_bytes

_MARK = REPLACED_SPACE.decode()
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": _MARK}
_NORMALIZERS: dict[str, list[Any]] = {
    "none": [],
    "nfc": [{"type": "NFC"}],
    "spaces": [_REPLACE],
    "prefixed_spaces": [{"type": "Prepend", "prepend": _MARK}, _REPLACE],
}


def _byte_level(*, use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "use_regex": use_regex}


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


_BYTE_LEVEL_SPLITS: dict[str, list[Any]] = {
    "gpt_2": [_byte_level(use_regex=True)],
    "digits_gpt_2": [{"type": "Digits", "individual_digits": True}, _byte_level(use_regex=True)],
    "llama_3": [_split(_WORDS % "{1,3}"), _byte_level(use_regex=False)],
    "qwen_2": [_split(_WORDS % ""), _byte_level(use_regex=False)],
}
# Gemma splits at spaces when its normalizer has left none.
_NO_SPLITS: list[list[Any]] = [
    [],
    [{"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}],
]
# Llama 2 and Mistral, as newer conversions write them.
_METASPACES: dict[str, list[Any]] = {
    name: [{"type": "Metaspace", "replacement": _MARK, "prepend_scheme": scheme, "split": False}]
    for name, scheme in (("metaspace", "never"), ("metaspace_first", "first"), ("metaspace_always", "always"))
}
_FALLBACK = [{**_REPLACE, "pattern": {"String": _MARK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
_DECODERS: dict[str, list[Any]] = {
    "byte_level": [{"type": "ByteLevel"}],
    "byte_fallback": _FALLBACK,
    "byte_fallback_stripped": [*_FALLBACK, {"type": "Strip", "content": " ", "start": 1, "stop": 0}],
}
_WITHOUT_EFFECT = {"trim_offsets"}  # on ids; a decoder ignores all of ByteLevel's settings
_LONGEST_ADDED = 256
_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")


class NotMappedError(Exception):
    """The tokenizer has a part that there are no tables for. The message says which, as the end of a sentence."""


@dataclass(frozen=True)
class AddedToken:
    """A token that is found in a text as it stands."""

    id: int
    name: str
    text: str
    """What of it is looked for: its name, normalised where the text is."""
    piece: str
    """What it is decoded as."""
    normalized: bool
    special: bool


@dataclass(frozen=True)
class Shape:
    """A tokenizer that fits. Names of kinds are those of `generation/tokenizer_file.py`."""

    normalizer: str
    split: str
    decoder: str
    ignore_merges: bool
    pieces: dict[str, int]
    """The ids of what words are made of."""
    merges: dict[tuple[int, int], tuple[int, int]]
    """Left and right to rank and result."""
    added: list[AddedToken]
    before: list[int]
    after: list[int]

    @property
    def is_byte_level(self) -> bool:
        """Whether pieces are written in byte-level BPE's alphabet."""
        return self.decoder == "byte_level"

    def bytes_of(self, piece: str) -> bytes:
        """What `bytes` of the file has for a piece."""
        if self.is_byte(piece):
            return bytes.fromhex(piece[3:5])
        spelled = byte_level_bytes(piece) if self.is_byte_level else None
        return piece.encode() if spelled is None else spelled

    def is_byte(self, piece: str) -> bool:
        """Whether a piece stands for a byte that no other has."""
        return not self.is_byte_level and _BYTE.fullmatch(piece) is not None

    @property
    def byte_ids(self) -> dict[int, int]:
        """The tokens that stand for single bytes."""
        if self.is_byte_level:
            spelled = {self.bytes_of(piece): token for piece, token in self.pieces.items()}
            return {byte: spelled[bytes([byte])] for byte in range(256) if bytes([byte]) in spelled}
        names = {byte: f"<0x{byte:02X}>" for byte in range(256)}
        return {byte: self.pieces[name] for byte, name in names.items() if name in self.pieces}


def shape_of(tokenizer: Tokenizer) -> Shape:
    """Raises NotMappedError."""
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    normalizer = _named("normalizer", content["normalizer"], _NORMALIZERS)
    decoder = _named("decoder", content["decoder"], _DECODERS)
    if decoder == "byte_level":
        split = _named("pre-tokenizer", content["pre_tokenizer"], _BYTE_LEVEL_SPLITS)
    else:
        split = "none"
        if normalizer == "none":
            normalizer = _named("pre-tokenizer", content["pre_tokenizer"], _METASPACES)
        elif _parts(content["pre_tokenizer"]) not in _NO_SPLITS or normalizer == "nfc":
            raise NotMappedError("its pre-tokenizer is none that there are tables for")
    if decoder == "byte_level" and "spaces" in normalizer:
        raise NotMappedError("its normalizer is none that there are tables for")
    model = content["model"]
    _check_model(model, decoder)
    pieces: dict[str, int] = model["vocab"]
    merges = {
        (pieces[left], pieces[right]): (rank, pieces[left + right])
        for rank, (left, right) in enumerate(model["merges"])
    }
    before, after = _special_tokens(tokenizer)
    added = [_added(token, tokenizer) for token in content["added_tokens"]]
    shape = Shape(normalizer, split, decoder, bool(model["ignore_merges"]), pieces, merges, added, before, after)
    _check_vocabulary(shape)
    return shape


def _parts(part: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """A component's parts in their order, without what has no effect on ids."""
    if part is None:
        return []
    if part["type"] == "Sequence":
        (inner,) = (value for name, value in part.items() if name != "type")
        return [single for each in inner for single in _parts(each)]
    return [{name: value for name, value in part.items() if name not in _WITHOUT_EFFECT}]


def _named(what: str, component: Mapping[str, Any] | None, known: Mapping[str, list[Any]]) -> str:
    """The name of a component among those `known`."""
    parts = _parts(component)
    if what == "decoder":
        parts = [{"type": "ByteLevel"} if part["type"] == "ByteLevel" else part for part in parts]
    name = next((name for name, expected in known.items() if parts == expected), None)
    if name is None:
        raise NotMappedError(f"its {what} is none that there are tables for")
    return name


def _check_model(model: Mapping[str, Any], decoder: str) -> None:
    if model["type"] != "BPE":
        raise NotMappedError(f"its model is {model['type']} and not BPE")
    if model["dropout"] or model["continuing_subword_prefix"] or model["end_of_word_suffix"]:
        raise NotMappedError("its merges have dropout, prefixes or suffixes")
    if decoder != "byte_level" and (not model["byte_fallback"] or model["ignore_merges"]):
        raise NotMappedError("it has no bytes for characters that it does not know")


def _check_vocabulary(shape: Shape) -> None:
    ids = {**{token.name: token.id for token in shape.added}, **shape.pieces}
    if len(set(ids.values())) != len(ids) or any(ids[token.name] != token.id for token in shape.added):
        raise NotMappedError("several of its tokens have one id")
    if not {*shape.before, *shape.after} <= set(ids.values()):
        raise NotMappedError("its post-processor adds tokens that it does not have")
    if len(shape.byte_ids) < 256:
        raise NotMappedError("it has no pieces for some bytes")
    if shape.is_byte_level and any(byte_level_bytes(piece) is None for piece in shape.pieces):
        raise NotMappedError("it has pieces that stand for no bytes")
    for normalized in (False, True):
        texts = [token.text for token in shape.added if token.normalized is normalized]
        if len(set(texts)) != len(texts) or any(not 0 < len(text.encode()) <= _LONGEST_ADDED for text in texts):
            raise NotMappedError("its added tokens are empty, alike or too long")


def _added(token: Mapping[str, Any], tokenizer: Tokenizer) -> AddedToken:
    name: str = token["content"]
    if token["single_word"] or token["lstrip"] or token["rstrip"]:
        raise NotMappedError("it has added tokens that take in or look at what is beside them")
    normalizes = token["normalized"] and tokenizer.normalizer is not None
    text = tokenizer.normalizer.normalize_str(name) if normalizes else name
    piece = tokenizer.id_to_token(token["id"]) or ""
    return AddedToken(token["id"], name, text, piece, token["normalized"], token["special"])


def _special_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """What the post-processor puts before a text and after it."""
    whole, plain = (tokenizer.encode("a", add_special_tokens=special).ids for special in (True, False))
    for begin in range(len(whole) - len(plain) + 1):
        end = begin + len(plain)
        if whole[begin:end] == plain and tokenizer.encode("").ids == whole[:begin] + whole[end:]:
            return whole[:begin], whole[end:]
    raise NotMappedError("its post-processor does more than add tokens at the ends of a text")
