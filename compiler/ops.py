"""The three operators that the graphs call and engines/native implements. Here: only their signatures and shapes.

They exist so that torch.export and Inductor can carry them; calling them from Python is not possible.
"""

from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, library


class Kind(IntEnum):
    """How a packed weight is stored. engines/native/packed.h gets the numbers as macros, see codegen.MACROS."""

    FLOAT32 = 0
    INT8 = 1
    INT4 = 2
    INT6 = 3


_library: Any = library.Library("engine", "DEF")  # type: ignore[no-untyped-call]
_fake: Any = library.register_fake
_library.define("packed_linear(Tensor x, Tensor weight, Tensor? bias, int n, int kind) -> Tensor")
_library.define("packed_embedding(Tensor ids, Tensor weight, int k, int kind) -> Tensor")
_library.define(
    "cached_attention(Tensor q, Tensor k, Tensor v, Tensor batch, int offset, float scale, float softcap, int window)"
    " -> Tensor"
)

packed_linear = torch.ops.engine.packed_linear.default
packed_embedding = torch.ops.engine.packed_embedding.default
cached_attention = torch.ops.engine.cached_attention.default

# The C functions the generated code calls for them, as Inductor wants them declared.
C_SHIMS = {
    packed_linear: [
        "AOTITorchError aoti_torch_cpu_packed_linear(AtenTensorHandle x, AtenTensorHandle weight,"
        " AtenTensorHandle* bias, int64_t n, int64_t kind, AtenTensorHandle* result)"
    ],
    packed_embedding: [
        "AOTITorchError aoti_torch_cpu_packed_embedding(AtenTensorHandle ids, AtenTensorHandle weight, int64_t k,"
        " int64_t kind, AtenTensorHandle* result)"
    ],
    cached_attention: [
        "AOTITorchError aoti_torch_cpu_cached_attention(AtenTensorHandle q, AtenTensorHandle k, AtenTensorHandle v,"
        " AtenTensorHandle batch, int64_t offset, double scale, double softcap, int64_t window,"
        " AtenTensorHandle* result)"
    ],
}


@_fake("engine::packed_linear")  # type: ignore[untyped-decorator]
def _(x: Tensor, weight: Tensor, bias: Tensor | None, n: int, kind: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], n)


@_fake("engine::packed_embedding")  # type: ignore[untyped-decorator]
def _(ids: Tensor, weight: Tensor, k: int, kind: int) -> Tensor:
    return weight.new_empty(*ids.shape, k, dtype=torch.float32)


@_fake("engine::cached_attention")  # type: ignore[untyped-decorator]
def _(q: Tensor, k: Tensor, v: Tensor, batch: Tensor, offset: int, scale: float, softcap: float, window: int) -> Tensor:
    return q.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[3])
