"""Checkpoint to GGUF, for Llama and Qwen2 shapes. Arguments: CHECKPOINT OUTPUT PRECISION (float32, int8, int4).

int8 is Q8_0. int4 is Q4_0 with the embedding, which is also the output head, in Q8_0, as llama.cpp's own quantiser
keeps it finer. Llama's queries and keys are reordered: llama.cpp rotates neighbouring values, transformers halves.
"""
# mypy: ignore-errors
# Its imports are of another environment, which the type checker does not see.

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np

checkpoint, output, precision = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
config = json.loads((checkpoint / "config.json").read_text())
KIND = gguf.GGMLQuantizationType
QUANTISED = {"float32": KIND.F32, "int8": KIND.Q8_0, "int4": KIND.Q4_0}[precision]
FINER = KIND.F32 if precision == "float32" else KIND.Q8_0
ARCHITECTURE = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2}[config["model_type"]]


def tensors() -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor as float32."""
    for file in sorted(checkpoint.glob("*.safetensors")):
        with file.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(size))
            data = stream.read()
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            raw = data[slice(*entry["data_offsets"])]
            if entry["dtype"] == "BF16":
                values = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
            else:
                values = np.frombuffer(raw, {"F32": np.float32, "F16": np.float16}[entry["dtype"]]).astype(np.float32)
            yield name, values.reshape(entry["shape"])


def interleave(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from two halves to neighbouring pairs."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
writer = gguf.GGUFWriter(output, gguf.MODEL_ARCH_NAMES[ARCHITECTURE])
writer.add_block_count(config["num_hidden_layers"])
writer.add_context_length(config["max_position_embeddings"])
writer.add_embedding_length(config["hidden_size"])
writer.add_feed_forward_length(config["intermediate_size"])
writer.add_head_count(heads)
writer.add_head_count_kv(kv_heads)
writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
writer.add_rope_freq_base(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])
writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
writer.add_vocab_size(config["vocab_size"])

tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
special = {entry["content"] for entry in tokenizer["added_tokens"]}
tokens = {i: token for token, i in tokenizer["model"]["vocab"].items()}
tokens |= {entry["id"]: entry["content"] for entry in tokenizer["added_tokens"]}
names = [tokens.get(i, f"<unused{i}>") for i in range(config["vocab_size"])]
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("default")
writer.add_token_list(names)
writer.add_token_types([gguf.TokenType.CONTROL if n in special else gguf.TokenType.NORMAL for n in names])
merges = tokenizer["model"]["merges"]
writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
writer.add_eos_token_id(
    config["eos_token_id"] if isinstance(config["eos_token_id"], int) else config["eos_token_id"][0]
)

mapping = gguf.get_tensor_name_map(ARCHITECTURE, config["num_hidden_layers"])
for name, values in tensors():
    if config.get("tie_word_embeddings") and name == "lm_head.weight":
        continue
    if ARCHITECTURE == gguf.MODEL_ARCH.LLAMA and ".self_attn.q_proj." in name:
        values = interleave(values, heads)
    if ARCHITECTURE == gguf.MODEL_ARCH.LLAMA and ".self_attn.k_proj." in name:
        values = interleave(values, kv_heads)
    kind = KIND.F32 if values.ndim == 1 else FINER if "embed_tokens" in name or "lm_head" in name else QUANTISED
    stored = gguf.quants.quantize(np.ascontiguousarray(values), kind)
    writer.add_tensor(mapping.get_name(name, try_suffixes=(".weight", ".bias")), stored, raw_dtype=kind)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
