"""Tokenizers in the shapes of known families, trained on a few lines, and their tables."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as RustTokenizer

from compiler import codegen
from compiler.tokenizer_shape import shape_of
from compiler.tokenizer_tables import tables
from engines.cpu_levels import levels_here
from generation.mapped_codec import LIBRARY, MappedCodec, open_library
from generation.tokenizer_file import FILE

CORPUS = [
    "the quick brown fox jumps over the lazy dog, doesn't it? It's 1234 o'clock; they're here we'll go, I'VE IT'S",
    'it said: {"name": "Zoë", "n": 12}\n\n    def f(x):\n        return x  # 日本語 naïve\n\n\n  \n x !!\n\n 12345  67',
    "a1b22c333 'sun 'Sun 'll  !\r\n\r\n\t\tx  ½½ ٣٤٣ 9 99 999 9999 \u2003\u2003x  ...\n",
] * 9
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = CL100K.replace("{1,3}", "")
UNMERGED = "Ġunmerged"
"""A piece that no merges make."""
ACROSS = [("Ċ", "Ċ"), ("Ċ", "Ġ"), ("ĊĊ", "Ġ"), ("Å", "¿"), ("Å¿", "z")]
"""Merges of a line's end with a space, and of the long s with a letter."""
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def _byte_level(splitter: Any, normalizer: Any = None, *, ignore_merges: bool = False) -> RustTokenizer:
    tokenizer = RustTokenizer(models.BPE())
    tokenizer.pre_tokenizer = _plain(use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False, max_token_length=12)
    tokenizer.train_from_iterator(CORPUS, trainer)
    # Trained on texts that are not split, it has merges across every place where the splitter must.
    content = json.loads(tokenizer.to_str())
    content["model"]["ignore_merges"] = ignore_merges
    vocabulary, merges = content["model"]["vocab"], content["model"]["merges"]
    for left, right in ACROSS:
        if left + right not in vocabulary:
            vocabulary[left + right] = len(vocabulary)
            merges.append([left, right])
    vocabulary[UNMERGED] = len(vocabulary)
    tokenizer = RustTokenizer.from_str(json.dumps(content))
    tokenizer.pre_tokenizer = splitter
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens(
        [
            "<tool>",
            "<tool",
            "<tool_call>",
            "~~",
            "\n\n\n",
            AddedToken("e\u0301", normalized=True),
            AddedToken("日本", normalized=False),
        ]
    )
    return tokenizer


def _with_id(tokenizer: RustTokenizer, token: str) -> tuple[str, int]:
    return token, tokenizer.token_to_id(token) or 0


def _plain(*, use_regex: bool) -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def _split(pattern: str) -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), _plain(use_regex=False)])


def _gpt_2() -> RustTokenizer:
    return _byte_level(_plain(use_regex=True))


def _smollm() -> RustTokenizer:
    return _byte_level(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _plain(use_regex=True)]))


def _llama_3() -> RustTokenizer:
    tokenizer = _byte_level(_split(CL100K), ignore_merges=True)
    begin: Any = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[_with_id(tokenizer, "<|im_start|>")]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), begin])
    return tokenizer


def _qwen_2() -> RustTokenizer:
    return _byte_level(_split(QWEN), normalizers.NFC())


def _fallback(normalizer: Any, strip: list[Any]) -> RustTokenizer:
    tokenizer = RustTokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=450, special_tokens=[*special, *BYTES], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    content = json.loads(tokenizer.to_str())
    # SentencePiece's byte tokens are no added ones.
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in special]
    tokenizer = RustTokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer.add_tokens(["\n\n", "▁▁▁", " x", AddedToken("<tool>", normalized=False)])
    return tokenizer


def _llama_2() -> RustTokenizer:
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return _fallback(normalizer, [decoders.Strip(" ", 1, 0)])


def _gemma() -> RustTokenizer:
    tokenizer = _fallback(normalizers.Replace(" ", "▁"), [])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return tokenizer


def _metaspace(scheme: Any) -> RustTokenizer:
    tokenizer = _fallback(normalizers.Replace(" ", "▁"), [decoders.Strip(" ", 1, 0)])
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", scheme, split=False)
    return tokenizer


FAMILIES: dict[str, Callable[[], RustTokenizer]] = {
    "GPT-2": _gpt_2,
    "SmolLM": _smollm,
    "Llama 3": _llama_3,
    "Qwen2": _qwen_2,
    "Llama 2": _llama_2,
    "Gemma": _gemma,
    "Mistral": lambda: _metaspace("first"),
    "Metaspace before each part": lambda: _metaspace("always"),
    "Metaspace for spaces alone": lambda: _metaspace("never"),
}


def write_tables(tokenizer: RustTokenizer, directory: Path) -> MappedCodec:
    """Its tables in `directory`, whether or not they are right, and opened."""
    (directory / LIBRARY).write_bytes(codegen.build_tokenizer(levels_here()[0]))
    (directory / FILE).write_bytes(tables(shape_of(tokenizer), open_library(directory / LIBRARY)))
    return MappedCodec(directory)
