"""Any checkpoint that transformers can load, on any device: the reference engine.

Importing this module imports torch and transformers, which is most of a cold start; `model_loader` times it as a phase
of its own. Knows nothing of the compiled engine, of text or of requests.
"""

import contextlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from engines.base import Logits, TokenIds
from engines.errors import LoadError
from engines.machine import available_memory, require_memory
from engines.pretrained import load_pretrained
from engines.weights import Stored, inspect_weights

PREFILL_CHUNK = 512
"""Tokens per forward pass of a long prompt: beyond it the matrix products gain nothing on a CPU."""
MEMORY_BESIDE_WEIGHTS = 300_000_000
"""Bytes that a loaded process needs beside its weights: torch, transformers and one request's activations."""


class TransformersEngine:
    """A transformers causal LM behind the Engine protocol."""

    name = "transformers"
    prefill_chunk = PREFILL_CHUNK

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        text = model.config.get_text_config()
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.device = str(model.device)
        self.vocab_size = int(text.vocab_size)
        self.context_length = int(getattr(text, "max_position_embeddings", None) or 2048)
        self._token_bytes = _cache_bytes_per_token(text, model.dtype)
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    def new_cache(self, capacity: int) -> "_Cache":
        """An empty cache for at most `capacity` tokens; it grows as it fills. MemoryError if it could not."""
        if self.device == "cpu":
            require_memory(capacity * self._token_bytes)
        return _Cache(DynamicCache(config=self.model.config), min(capacity, self.context_length))

    @torch.inference_mode()
    def forward(self, ids: TokenIds, cache: "_Cache", last: int = 1) -> Logits:
        """See `Engine.forward`."""
        if not 1 <= last <= len(ids) <= self.prefill_chunk:
            raise ValueError(f"{len(ids)} ids and the last {last} logits do not fit a chunk of {self.prefill_chunk}")
        if ids.min() < 0 or ids.max() >= self.vocab_size:
            raise ValueError(f"a token id is outside 0..{self.vocab_size - 1}")
        if cache.length + len(ids) > cache.capacity:
            raise ValueError(f"{cache.length} + {len(ids)} tokens overflow a cache of {cache.capacity}")
        keep = {"logits_to_keep": last} if self._keeps else {}
        with _memory_errors():
            inputs = torch.from_numpy(ids).to(self.model.device)[None]
            logits = self.model(input_ids=inputs, past_key_values=cache.entries, use_cache=True, **keep).logits
            rows: Logits = logits[0, -last:].float().cpu().numpy()
        cache.length += len(ids)
        return rows


class _Cache:
    """One sequence's keys and values, as transformers keeps them for this architecture."""

    def __init__(self, entries: DynamicCache, capacity: int) -> None:
        self.entries = entries
        self.capacity = capacity
        self.length = 0


def _cache_bytes_per_token(config: Any, dtype: torch.dtype) -> int:
    """Keys and values of one token in all layers; 0 for a network that keeps none in this way."""
    heads = getattr(config, "num_attention_heads", 0)
    width = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * config.num_hidden_layers * kv_heads * width * dtype.itemsize)


def load(directory: Path, *, dtype: str, device: str, threads: int) -> TransformersEngine:
    """Load a checkpoint directory. Raises LoadError with one sentence that names the file and the remedy.

    `dtype` is a torch dtype's name, or `auto` for the stored one where this device runs it well. `device` is `cpu`,
    `cuda` or `auto`: accelerate's device map, over GPUs where there are any.
    """
    torch.set_num_threads(threads)
    config_file = directory / "config.json"
    if not config_file.is_file():
        raise LoadError(f"{config_file} is missing; MODEL_DIR must be a Hugging Face checkpoint directory.")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if device == "cuda" and not on_gpu:
        raise LoadError("DEVICE is 'cuda' but torch finds no GPU; set DEVICE=auto, or run where there is one.")
    stored = inspect_weights(directory)
    chosen = stored.dtype if dtype == "auto" and (on_gpu or _runs_well(stored.dtype)) else dtype
    chosen = "float32" if chosen == "auto" else chosen
    if not on_gpu:
        _check_memory(directory, stored, chosen)
    return TransformersEngine(load_pretrained(directory, chosen, "auto" if on_gpu else "cpu"))


def _runs_well(dtype: str) -> bool:
    """Whether this CPU has instructions for it; without them a half-width dtype is emulated and slower."""
    capabilities = torch.cpu.get_capabilities()
    wanted = {"bfloat16": ("avx512_bf16", "amx_bf16", "bf16"), "float16": ("avx512_fp16", "amx_fp16")}
    return dtype == "float32" or any(capabilities.get(name, False) for name in wanted.get(dtype, ()))


def _check_memory(directory: Path, stored: Stored, dtype: str) -> None:
    """LoadError where the weights cannot fit, before the kernel ends the process for it."""
    needed = stored.parameters * getattr(torch, dtype).itemsize + MEMORY_BESIDE_WEIGHTS
    available = available_memory()
    if needed > available:
        raise LoadError(
            f"{directory} needs about {needed / 1e6:.0f} MB in {dtype} and {available / 1e6:.0f} MB are free; "
            f"raise the memory size, set DTYPE to a smaller type, or use a smaller model."
        )


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    """torch's two ways of saying that memory ran out, as MemoryError."""
    try:
        yield
        return
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
    raise MemoryError("the engine ran out of memory")
