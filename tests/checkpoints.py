"""Tiny random checkpoints in Hugging Face format, made on the spot: real files for the real loading code.

Widths are multiples of 64 so that every engine takes them; the tokenizer is byte-level, so any text round-trips.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen3Config,
)
from transformers.utils import logging as transformers_logging

CONTEXT = 640
VOCAB = 320
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": CONTEXT,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "gpt2": GPT2Config(
        vocab_size=VOCAB, bos_token_id=0, eos_token_id=0, n_embd=64, n_layer=2, n_head=4, n_positions=CONTEXT
    ),
    "qwen3": Qwen3Config(**SIZES),
    "mistral-sliding": MistralConfig(**SIZES, sliding_window=24),
    "gemma3-sliding": Gemma3TextConfig(
        **SIZES, sliding_window=24, layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=16
    ),
}


def make_checkpoint(
    directory: Path, architecture: str = "llama", dtype: torch.dtype = torch.float32, **changes: Any
) -> Path:
    """Write a random checkpoint of `architecture` (a key of CONFIGS, with `changes`) and return its directory."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    config = copy.deepcopy(CONFIGS[architecture])
    config.update(changes)
    config.eos_token_id, config.bos_token_id, config.pad_token_id = 0, 0, 0
    config.initializer_range = 0.2  # large enough that greedy text varies instead of repeating one token
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # norms and biases, which are all ones and zeros at first and would test nothing
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.to(dtype)
    model.save_pretrained(directory)
    write_tokenizer(directory)
    return directory


def write_tokenizer(directory: Path, vocab_size: int = VOCAB) -> None:
    """A byte-level BPE tokenizer with `vocab_size` entries, `<eos>` the first, and no chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the quick brown fox jumps over the lazy dog and runs into the river"] * 4, trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text('{"eos_token": "<eos>"}')
