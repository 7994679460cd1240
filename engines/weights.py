"""The weight files of a checkpoint directory, looked at without reading them.

Finds what a truncated copy or a forgotten shard would otherwise turn into an obscure error deep in a library. The
safetensors header: eight bytes of little-endian length, then JSON of name, dtype, shape and data offsets
(https://github.com/huggingface/safetensors#format).
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import LoadError

COPY_AGAIN = "copy the checkpoint again"
DTYPE_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True, slots=True)
class Stored:
    """What a checkpoint holds."""

    parameters: int
    dtype: str
    """torch's name for the dtype of most parameters; `float32` where the format does not tell."""
    largest: int
    """Parameters of the largest tensor."""


def inspect_weights(directory: Path) -> Stored:
    """Check that every weight file is there and complete. Raises LoadError naming the file at fault."""
    files = _weight_files(directory)
    if not files:
        pickled = next(directory.glob("pytorch_model*.bin"), None)
        if pickled is not None:
            raise LoadError(
                f"{pickled} is pickled, and reading it would run its author's code; save the model again with "
                f"`save_pretrained`, which writes safetensors."
            )
        raise LoadError(f"{directory} holds no weights (model.safetensors); {COPY_AGAIN}.")
    counts: dict[str, int] = {}
    largest = 0
    for file in files:
        for dtype, size in _header(file):
            counts[dtype] = counts.get(dtype, 0) + size
            largest = max(largest, size)
    most = max(counts, key=lambda dtype: counts[dtype], default="F32")
    return Stored(sum(counts.values()), DTYPE_NAMES.get(most, "float32"), largest)


def _weight_files(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    if not index.is_file():
        return sorted(directory.glob("*.safetensors"))
    try:
        names = set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LoadError(f"{index} is not an index of weight files; {COPY_AGAIN}.") from None
    missing = sorted(name for name in names if not (directory / name).is_file())
    if missing:
        raise LoadError(f"{directory / missing[0]} is missing; {COPY_AGAIN}.")
    return [directory / name for name in sorted(names)]


def _header(file: Path) -> list[tuple[str, int]]:
    """Each tensor's dtype, as the format names it, and how many numbers it has."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        raw = stream.read(length) if length <= size - 8 else b""
    try:
        header: dict[str, dict[str, Any]] = json.loads(raw)
        header.pop("__metadata__", None)
        end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
        tensors = [(tensor["dtype"], math.prod(tensor["shape"])) for tensor in header.values()]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LoadError(f"{file} is not a safetensors file; {COPY_AGAIN}.") from None
    if size != 8 + length + end:
        raise LoadError(f"{file} holds {size} bytes where its header says {8 + length + end}; {COPY_AGAIN}.")
    return tensors
