"""Any checkpoint that transformers can load, on any device: the reference engine.

Importing this module imports torch and transformers, which is most of a cold start; `model_loader` times it as a phase
of its own. Knows nothing of the compiled engine, of text or of requests.
"""

import contextlib
import copy
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from engines import padded
from engines.base import PAGE_TOKENS, Logits, OutOfPagesError, Step, TokenIds, check_steps
from engines.errors import LoadError
from engines.machine import available_memory
from engines.pretrained import load_pretrained
from engines.weights import Stored, inspect_weights

MAX_ROWS = 512
"""Tokens per forward pass of a long prompt: beyond it the matrix products gain nothing on a CPU."""
MEMORY_BESIDE_WEIGHTS = 300_000_000
"""Bytes that a loaded process needs beside its weights: torch, transformers and one request's activations."""


class TransformersEngine:
    """A transformers causal LM behind the Engine protocol."""

    name = "transformers"
    max_rows = MAX_ROWS
    pool = None
    prefixes = ()

    def __init__(self, model: PreTrainedModel, *, pads: bool) -> None:
        """With `pads` the steps of a pass share padded batches where the network takes them; else each runs alone."""
        self.model = model
        text = model.config.get_text_config()
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.device = str(model.device)
        self.vocab_size = int(text.vocab_size)
        self.context_length = int(getattr(text, "max_position_embeddings", None) or 2048)
        self._token_bytes = _cache_bytes_per_token(text, model.dtype)
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._pads = pads and padded.takes_batches(model)
        self.total_tokens = self._memory_tokens()

    def new_cache(self, pages: Sequence[int] = ()) -> "TransformersCache":
        """See `Engine.new_cache`."""
        return TransformersCache(self.model.config)

    @property
    def free_tokens(self) -> int:
        """See `Engine.free_tokens`: what the memory that is free now could hold."""
        return min(self.total_tokens, self._memory_tokens())

    def forward(self, steps: Sequence[Step]) -> list[Logits]:
        """See `Engine.forward`."""
        check_steps(self, steps)
        if any(_begins_a_page(step) for step in steps) and sum(len(step.ids) for step in steps) > self.free_tokens:
            raise OutOfPagesError("the memory that is free cannot hold these tokens")
        lengths = [step.cache.length for step in steps]
        try:
            return self._run_padded(steps) if self._pads else [self._run(step) for step in steps]
        except BaseException:
            for step, length in zip(steps, lengths, strict=True):
                step.cache.truncate(length)
            raise

    @torch.inference_mode()
    def _run(self, step: Step) -> Logits:
        cache: TransformersCache = step.cache
        keep = {"logits_to_keep": max(step.last, 1)} if self._keeps else {}
        entries = cache.take_entries()
        # More than the step's own ids only where the cache had to forget what it could not cut back.
        ids = np.concatenate([cache.unread, np.asarray(step.ids)])
        first = len(ids) - step.last
        found = []
        with _memory_errors():
            for start in range(0, len(ids), self.max_rows):
                inputs = torch.from_numpy(ids[start : start + self.max_rows]).to(self.model.device)[None]
                logits = self.model(input_ids=inputs, past_key_values=entries, use_cache=True, **keep).logits
                wanted = max(0, start + inputs.shape[1] - max(start, first))
                found.append(logits[0, logits.shape[1] - wanted :])
            rows: Logits = torch.cat(found).float().cpu().numpy()
        cache.extend(step.ids, entries)
        return rows

    @torch.inference_mode()
    def _run_padded(self, steps: Sequence[Step]) -> list[Logits]:
        found: dict[int, Logits] = {}
        for numbers in padded.alike(steps):
            group = [steps[number] for number in numbers]
            if len(group) == 1 or any(len(step.cache.unread) for step in group):
                found |= {number: self._run(steps[number]) for number in numbers}
                continue
            with _memory_errors():
                entries = [step.cache.entries for step in group]
                outcomes = padded.forward(self.model, group, entries, keeps=self._keeps)
            for number, (rows, extended) in zip(numbers, outcomes, strict=True):
                steps[number].cache.extend(steps[number].ids, extended)
                found[number] = rows
        return [found[number] for number in range(len(steps))]

    def _memory_tokens(self) -> int:
        if self.device != "cpu":
            free: int = torch.cuda.mem_get_info()[0]
        else:
            free = available_memory()
        return max(0, free // self._token_bytes // PAGE_TOKENS * PAGE_TOKENS)


class TransformersCache:
    """One sequence's keys and values, as transformers keeps them for this architecture.

    Sliding windows and recurrent states cannot be cut back, nor can entries that an error left half-written: then all
    of them are dropped, and the tokens are read again with the next step.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        self.pages: list[int] = []
        self._config = config
        self._ids = np.empty(0, np.int64)
        self._entries: DynamicCache | None = None
        self._read = 0
        """How many of the ids the entries hold."""

    @property
    def length(self) -> int:
        """See `KVCache.length`."""
        return len(self._ids)

    @property
    def unread(self) -> TokenIds:
        """The ids that the entries do not hold (any more)."""
        return self._ids[self._read :]

    @property
    def entries(self) -> DynamicCache:
        """The keys and values of the ids that are not `unread`, in all layers; not to be changed."""
        return DynamicCache(config=self._config) if self._entries is None else self._entries

    def take_entries(self) -> DynamicCache:
        """The entries, to be extended. They are lost unless `extend` brings them back."""
        entries = self.entries
        if self._entries is None:
            self._read = 0
        self._entries = None
        return entries

    def extend(self, ids: TokenIds, entries: DynamicCache) -> None:
        """Append `ids`, which `entries` now hold together with everything before them."""
        self._ids = np.concatenate([self._ids, np.asarray(ids)])
        self._entries, self._read = entries, len(self._ids)

    def truncate(self, length: int) -> None:
        """See `KVCache.truncate`."""
        if not 0 <= length <= len(self._ids):
            raise ValueError(f"a cache of {len(self._ids)} tokens cannot be cut to {length}")
        self._ids = self._ids[:length]
        if self._entries is None or self._read <= length:
            return
        if all(type(layer) is DynamicLayer for layer in self._entries.layers) and length:
            self._entries.crop(length - self._read)
            self._read = length
        else:
            self._entries, self._read = None, 0

    def fork(self) -> "TransformersCache":
        """See `KVCache.fork`; here everything is copied."""
        return copy.deepcopy(self)

    def close(self) -> None:
        """See `KVCache.close`."""
        self.truncate(0)


def _begins_a_page(step: Step) -> bool:
    """Whether a step's tokens need a page that its cache does not have yet."""
    length: int = step.cache.length
    return (length + len(step.ids) - 1) // PAGE_TOKENS > (length - 1) // PAGE_TOKENS


def _cache_bytes_per_token(config: Any, dtype: torch.dtype) -> int:
    """Keys and values of one token in all layers, at least 1: some networks keep none in this way."""
    heads = getattr(config, "num_attention_heads", 0)
    width = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    return max(1, int(2 * config.num_hidden_layers * kv_heads * width * dtype.itemsize))


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
    # A CPU gains nothing from a padded batch: it computes the padding and copies the caches.
    return TransformersEngine(load_pretrained(directory, chosen, "auto" if on_gpu else "cpu"), pads=on_gpu)


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
