"""Checkpoints to measure: a directory given, or random weights in the shape of a known model, made on the spot.

Speed does not depend on what the weights say, so random ones measure the same; their text is noise.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.errors import InputError
from benchmarks.prompt_text import prompt_text

SHAPES: dict[str, dict[str, Any]] = {
    "SmolLM2-135M": {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "vocab_size": 49_152,
        "tokens": 49_152,
        "max_position_embeddings": 8192,
        "rope_theta": 100_000.0,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    },
    "Qwen2.5-0.5B": {
        "model_type": "qwen2",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
        "tokens": 151_665,
        "max_position_embeddings": 32_768,
        "rope_theta": 1_000_000.0,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
    },
    "Qwen2.5-1.5B": {
        "model_type": "qwen2",
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
        "tokens": 151_665,
        "max_position_embeddings": 32_768,
        "rope_theta": 1_000_000.0,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
    },
}
"""Sizes from the models' own config.json on the Hugging Face hub; `tokens` is how many their tokenizers know."""
OPTIONS = {
    "none": ["--quantize", "none"],
    "int8": ["--quantize", "int8"],
    "int4": ["--quantize", "int4"],
    "int4-uncalibrated": ["--quantize", "int4", "--no-calibration"],
}
"""Of the compiler, for each way to compile a checkpoint."""
QUANTIZE = tuple(OPTIONS)
MADE = Path("build/benchmarks/checkpoints")
COMPILED = Path("build/benchmarks/artifacts")


def checkpoint(name: str) -> Path:
    """The directory of a checkpoint: `name` is one, or a key of SHAPES, which is made unless it has been before."""
    if name not in SHAPES:
        if not Path(name, "config.json").is_file():
            raise InputError(f"{name} is neither a checkpoint directory nor one of {', '.join(SHAPES)}.")
        if Path(name, "manifest.json").is_file():
            raise InputError(f"{name} is an artifact; the checkpoint that it was compiled from is needed.")
        return Path(name)
    directory = MADE / name
    if not (directory / "tokenizer_config.json").is_file():
        make(SHAPES[name], directory)
    return directory


def model_directory(text: str) -> Path:
    """What `text` names: an artifact's or checkpoint's directory, a shape, or either with `:int8` to be compiled.

    With `:int8+1000` it is compiled with a prompt of about that many tokens that it has read.
    """
    if Path(text, "manifest.json").is_file():
        return Path(text)
    name, separator, how = text.rpartition(":")
    quantize, plus, tokens = how.partition("+")
    if not separator or quantize not in QUANTIZE or tokens.isdecimal() != bool(plus):
        return checkpoint(text)
    return _artifact(checkpoint(name), quantize, int(tokens or 0))


def _artifact(source: Path, quantize: str, prompt_tokens: int) -> Path:
    """The checkpoint compiled, unless it has been before by this very compiler."""
    name = f"{source.resolve().name}-{quantize}" + (f"-{prompt_tokens}" if prompt_tokens else "")
    directory = COMPILED / compiler_digest() / name
    if not (directory / "manifest.json").is_file():
        directory.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "compiler", str(source), str(directory), *OPTIONS[quantize]]
        if prompt_tokens:
            prompt = directory.with_name(f"{name}.txt")
            prompt.write_text(prompt_text(source, prompt_tokens))
            command.append(f"--prompt={prompt}")
        compiled = subprocess.run(command, capture_output=True, text=True, check=False)
        if compiled.returncode:
            last = next(iter(reversed(compiled.stderr.strip().splitlines())), "no message")
            raise InputError(f"{source} cannot be compiled to {quantize}: {last[:300]}")
    return directory


def compiler_digest() -> str:
    """Of the compiler's sources and the kernels', so that no artifact of an older one is measured."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for file in sorted([*(root / "compiler").glob("*.py"), *(root / "engines" / "native").iterdir()]):
        if file.suffix in (".py", ".cpp", ".h"):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def make(shape: dict[str, Any], directory: Path, change: Callable[[Any], None] | None = None) -> None:
    """Write a checkpoint with random weights; `change` is given the model before it is saved."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    arguments = {name: value for name, value in shape.items() if name not in ("model_type", "rope_theta", "tokens")}
    rope = {"rope_type": "default", "rope_theta": shape["rope_theta"]}
    config = AutoConfig.for_model(
        shape["model_type"], **arguments, rope_parameters=rope, eos_token_id=0, bos_token_id=0, pad_token_id=0
    )
    config.initializer_range = 0.1  # large enough that greedy text varies instead of repeating one token
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    if change is not None:
        change(model)
    model.to(torch.bfloat16).save_pretrained(directory)
    _write_tokenizer(directory, shape["tokens"])


def _write_tokenizer(directory: Path, size: int) -> None:
    """A byte-level BPE tokenizer with as many entries as the model's: pairs of bytes, then pairs of pairs."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<eos>": 0, **{letter: i + 1 for i, letter in enumerate(alphabet)}}
    merges = []
    for left in [*alphabet, *(a + b for a in alphabet for b in alphabet)]:
        for right in alphabet:
            if len(vocab) == size:
                break
            if left + right not in vocab:
                vocab[left + right] = len(vocab)
                merges.append((left, right))
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<eos>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(
        json.dumps(dict.fromkeys(("eos_token", "bos_token", "unk_token"), "<eos>"))
    )
