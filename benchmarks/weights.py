"""What a model directory holds on disk."""

from pathlib import Path


def weights_bytes(directory: Path) -> int:
    """Size of the weights alone: an artifact's flat file, or a checkpoint's safetensors."""
    return sum(file.stat().st_size for file in [*directory.glob("weights.bin"), *directory.glob("*.safetensors")])
