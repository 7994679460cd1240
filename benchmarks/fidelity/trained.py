"""`python -m benchmarks.fidelity.trained DIRECTORY`: trained models of other shapes than the demo's, to quantise.

They learn the demo's texts with the demo's tokenizer, in a part of an hour each on one thread. Every width is a
multiple of 256, which llama.cpp's K-quants need. A third checkpoint is the first with outliers planted in it.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from tools.demo_shape import CONTEXT, END_OF_TEXT, IM_END
from tools.train_demo_model import Stage, tasks_and_stories, token_id, train

DEMO = Path("models/demo")
SEED = 30
STAGES = {
    "llama-6m": Stage(lambda: tasks_and_stories(SEED), threads=1, steps=700, warmup_steps=50, peak_learning_rate=2e-3),
    "qwen2-9m": Stage(
        lambda: tasks_and_stories(SEED + 1), threads=1, steps=450, warmup_steps=40, peak_learning_rate=1.5e-3
    ),
}
OUTLIERS = "llama-6m-outliers"
OUTLIER_CHANNELS = 4
"""Of the input of each attention and each feed-forward part: half of them large in the weights, half in activations."""


def config(name: str, tokenizer: PreTrainedTokenizerFast) -> PretrainedConfig:
    """The shape of a key of STAGES."""
    end_of_text, im_end = token_id(tokenizer, END_OF_TEXT), token_id(tokenizer, IM_END)
    common: dict[str, Any] = {
        "vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT, "tie_word_embeddings": True,
        "bos_token_id": end_of_text, "eos_token_id": [im_end, end_of_text], "pad_token_id": end_of_text,
        "dtype": "float32",
    }  # fmt: skip
    if name == "llama-6m":
        return LlamaConfig(
            hidden_size=256, intermediate_size=768, num_hidden_layers=8, num_attention_heads=4,
            num_key_value_heads=2, head_dim=64, **common,
        )  # fmt: skip
    return Qwen2Config(
        hidden_size=512, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=2,
        **common,
    )  # fmt: skip


@torch.no_grad()
def plant_outliers(model: PreTrainedModel, channels: int = OUTLIER_CHANNELS) -> None:
    """Scale a few inputs of each Llama layer's parts by 10 to 30, and their norm's weights inversely, or both the other
    way round, in place. What the model computes stays the same but for float32's rounding.
    """
    random = torch.Generator().manual_seed(SEED)
    for layer in model.get_submodule("model.layers").children():
        for norm, readers in (
            ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
        ):
            weight = layer.get_parameter(f"{norm}.weight")
            chosen = torch.randperm(len(weight), generator=random)[:channels]
            factors = 10 + 20 * torch.rand(channels, generator=random)
            factors[::2] = 1 / factors[::2]
            weight[chosen] /= factors
            for reader in readers:
                layer.get_parameter(f"{reader}.weight")[:, chosen] *= factors


def main(directory: Path) -> None:
    """Train what is not there yet, and plant the outliers."""
    torch.set_num_threads(1)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(DEMO)
    for name, stage in STAGES.items():
        if (directory / name / "heldout.txt").exists():
            continue
        torch.manual_seed(SEED)
        model = AutoModelForCausalLM.from_config(config(name, tokenizer))  # type: ignore[no-untyped-call]
        print(f"{name}: {model.num_parameters():,} parameters", flush=True)
        print(train(model, tokenizer, stage), flush=True)
        _save(model, tokenizer, directory / name)
    model = LlamaForCausalLM.from_pretrained(directory / next(iter(STAGES)))
    plant_outliers(model)
    _save(model, tokenizer, directory / OUTLIERS)


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    shutil.copy(DEMO / "heldout.txt", directory)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
