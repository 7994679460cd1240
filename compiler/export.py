"""Checkpoint -> exported graph: the unmodified transformers model, traced by torch.export.

Attention is the one thing replaced, through transformers' own registry of attention functions: each layer hands its
queries, keys and values to `engine::cached_attention`, which owns the KV cache. Knows nothing of weights' formats or
of C++.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from compiler import ops
from compiler.errors import UnsupportedModelError, refusing
from engines.pretrained import load_pretrained

MAX_ROWS = 512
"""Most tokens of one forward pass, all sequences together."""

# Arguments that transformers' models pass to attention functions and that do not change a causal result. Beside them
# and those that `_Attention` reads, an argument that is not None means semantics not implemented here.
_HARMLESS = {"position_ids", "position_embeddings", "use_cache", "is_causal", "past_key_values", "cache_position"}


@dataclass(frozen=True)
class Layer:
    """The part of the KV cache that one layer owns (engines/native/cache.h); sizes in elements of `element_bytes`."""

    kv_heads: int
    key_size: int
    value_size: int
    element_bytes: int

    @property
    def elements_per_token(self) -> int:
        scales = 0 if self.element_bytes == 4 else 2 * 4 // self.element_bytes
        return self.kv_heads * (-(-self.key_size // 16) * 16 + -(-self.value_size // 16) * 16 + scales)


@dataclass(frozen=True)
class Exported:
    """The graph of one model, called with (ids [1, S], positions [1, S], batch [1], keep [L])."""

    program: torch.export.ExportedProgram
    layers: list[Layer]
    vocab_size: int


class _Attention:
    """What the layers call instead of transformers' attention. Notes each layer's share of the cache on the way."""

    def __init__(self, element_bytes: int) -> None:
        self.element_bytes = element_bytes
        self.batch: Tensor | None = None
        self.layers: list[Layer] = []

    def begin(self, batch: Tensor) -> None:
        """Start of one trace; `batch` is the graph's input that says whose the tokens are and where the caches lie."""
        self.batch, self.layers = batch, []

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        """`[1, heads, S, D]` in, `[1, S, heads, D]` out."""
        dropout, scale = kwargs.pop("dropout", 0.0), kwargs.pop("scaling", None)
        softcap, window = kwargs.pop("softcap", None), kwargs.pop("sliding_window", None)
        unknown = sorted(k for k, v in kwargs.items() if v is not None and k not in _HARMLESS)
        if unknown or dropout or mask is not None or not getattr(module, "is_causal", True):
            reason = ", ".join(unknown) or ("a mask of its own" if mask is not None else "attention that is not causal")
            raise UnsupportedModelError(f"{type(module).__name__} asks for {reason}")
        assert self.batch is not None
        offset = sum(layer.elements_per_token for layer in self.layers)
        self.layers.append(Layer(key.shape[1], key.shape[3], value.shape[3], self.element_bytes))
        out = ops.cached_attention(
            query, key, value, self.batch, offset, float(query.shape[-1] ** -0.5 if scale is None else scale),
            float(softcap or 0.0), int(window or 0),
        )  # fmt: skip
        return out, None


class _Traced(nn.Module):
    """The model with the inputs of the graph."""

    def __init__(self, model: PreTrainedModel, attention: _Attention) -> None:
        super().__init__()
        self.model = model
        self.attention = attention

    def forward(self, ids: Tensor, positions: Tensor, batch: Tensor, keep: Tensor) -> Tensor:
        self.attention.begin(batch)
        logits: Tensor = self.model(input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=keep).logits
        return logits


def load(checkpoint: Path) -> PreTrainedModel:
    """The checkpoint as transformers loads it, in float32. Raises LoadError where it is incomplete or no causal LM."""
    return load_pretrained(checkpoint, "float32", attention="eager")


@contextmanager
def _attention_routed(model: PreTrainedModel, attention: _Attention) -> Iterator[None]:
    """Route the model's attention to the engine's operator while it is traced."""
    before = model.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register("engine", attention)
    configs: list[Any] = [m.config for m in model.modules() if hasattr(m, "config")]
    for config in configs:
        config._attn_implementation = "engine"
    try:
        yield
    finally:
        for config in configs:
            config._attn_implementation = before


def _example_inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs to trace the graph with: 7 tokens, logits after 3 of them."""
    length, rows = 7, 3
    return (
        torch.zeros(1, length, dtype=torch.int64),
        torch.arange(length)[None],
        torch.zeros(1, dtype=torch.int64),
        torch.arange(rows),
    )


def _dynamic_shapes() -> tuple[Any, ...]:
    """Which dimensions of the graph's inputs may vary, and between which bounds.

    Two at least, because torch.export takes a dimension of 1 for a constant. The loops that come out of it do one token
    as well as many, and a token's logits are then the same bits whatever is in the pass beside it.
    """
    tokens = torch.export.Dim("tokens", min=2, max=MAX_ROWS)
    rows = torch.export.Dim("rows", min=2, max=MAX_ROWS)
    return ({1: tokens}, {1: tokens}, None, {0: rows})


def export(model: PreTrainedModel, element_bytes: int) -> Exported:
    """Trace the model once, for up to MAX_ROWS tokens of any sequences.

    `element_bytes` is the size of a number in their caches.
    """
    attention = _Attention(element_bytes)
    traced = _Traced(model, attention)
    layers = model.config.get_text_config().num_hidden_layers
    refusal = f"torch.export cannot trace {type(model).__name__}"
    with torch.no_grad(), refusing(refusal), _attention_routed(model, attention):
        program = torch.export.export(traced, _example_inputs(), dynamic_shapes=_dynamic_shapes(), strict=False)
    if len(attention.layers) != layers:
        raise UnsupportedModelError(
            f"{type(model).__name__} has {layers} layers but only {len(attention.layers)} of them use plain attention"
        )
    (positions,) = (n for n in program.graph.nodes if n.op == "placeholder" and n.name == "positions")
    if all(user.target is torch.ops.aten.sym_size.int for user in positions.users):
        raise UnsupportedModelError(f"{type(model).__name__} does not read the positions that it is given")
    return Exported(program, attention.layers, model.config.get_text_config().vocab_size)


def again(
    program: torch.export.ExportedProgram, change: Callable[[torch.fx.GraphModule], None]
) -> torch.export.ExportedProgram:
    """The same program after `change` has edited its graph."""
    module = program.module(check_guards=False)
    assert isinstance(module, torch.fx.GraphModule)
    change(module)
    with torch.no_grad():
        return torch.export.export(module, program.example_inputs[0], dynamic_shapes=_dynamic_shapes(), strict=False)
