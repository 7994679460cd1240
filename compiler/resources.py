"""What a compilation needs of this machine: memory and disk, estimated from the size of the checkpoint."""

import shutil
from pathlib import Path

from compiler.errors import CompileError
from engines.errors import LoadError
from engines.machine import available_memory
from engines.weights import inspect_weights

_FLOAT32 = 4
_PACKED = {"none": 4.0, "int8": 1.05, "int4": 0.65}
"""Bytes per weight in an artifact, embedding and head included."""
_CODES = 1.0
"""Bytes per weight that calibrated four-bit weights take until they are packed."""
_PACKING = 8.0
"""Bytes per weight of the largest matrix while it is packed (measured: 8.1 with six bits, 5.0 with eight)."""
_MEMORY_BESIDE = 2_000_000_000
"""Bytes of memory for torch and for the generated code's compilers."""
_DISK_BESIDE = 50_000_000
"""Bytes on disk for machine code and tokenizer."""


def require(checkpoint: Path, target: Path, quantize: str, *, calibrated: bool) -> None:
    """Raises CompileError where memory or the disk of `target` is too small, LoadError for an incomplete checkpoint."""
    if not (checkpoint / "config.json").is_file():
        raise LoadError(f"{checkpoint / 'config.json'} is missing; give the directory of a Hugging Face checkpoint.")
    stored = inspect_weights(checkpoint)
    weights = stored.parameters
    memory = weights * (_FLOAT32 + _PACKED[quantize] + _CODES * calibrated) + stored.largest * _PACKING + _MEMORY_BESIDE
    _require(memory, available_memory(), "of memory", checkpoint, quantize)
    existing = next(folder for folder in (target.parent, *target.absolute().parents) if folder.is_dir())
    disk = weights * _PACKED[quantize] + _DISK_BESIDE
    _require(disk, shutil.disk_usage(existing).free, f"on the disk of {existing}", checkpoint, quantize)


def _require(needed: float, free: float, where: str, checkpoint: Path, quantize: str) -> None:
    if needed > free:
        raise CompileError(
            f"Compiling {checkpoint} to {quantize} needs about {needed / 1e9:.1f} GB {where}, and {free / 1e9:.1f} GB "
            f"are free."
        )
