"""What a model directory's files say before anything loads them: whether all are there and whole, how large it is."""

import json
import math
from pathlib import Path
from typing import Any

from image.errors import PrepareError
from startup import model_files

WEIGHTS = "model.safetensors"
LONGEST_HEADER = 100_000_000
"""Bytes: the safetensors format allows no longer one."""


def is_artifact(directory: Path) -> bool:
    """Whether a directory is compiled already."""
    return (directory / model_files.MANIFEST).is_file()


def files_of(directory: Path) -> list[Path]:
    """The files to serve: those that a compiled artifact's manifest names, or a checkpoint's.

    Raises PrepareError where one is missing or not whole.
    """
    if is_artifact(directory):
        manifest = directory / model_files.MANIFEST
        content = _read_json(manifest)
        named = content.get("files") if isinstance(content, dict) else None
        if not isinstance(named, dict):
            raise PrepareError(f"{manifest} is not the manifest of a compiled model; compile it again.")
        absent = next((name for name in sorted(named) if not (directory / name).is_file()), None)
        if absent is not None:
            raise PrepareError(f"{directory} has no {absent}: it is no complete artifact; compile it again.")
        return [manifest, *(directory / name for name in sorted(named))]
    files = sorted(file for file in directory.iterdir() if file.is_file() and model_files.is_served(file.name))
    names = {file.name for file in files}
    lacking = model_files.missing_from(names) or next(iter(sorted(_shards(directory) - names)), None)
    if lacking is None and not names & {WEIGHTS, model_files.SHARD_INDEX}:
        lacking = f"{WEIGHTS}, nor {model_files.SHARD_INDEX} for weights in several files"
    if lacking is not None:
        raise PrepareError(
            f"{directory} has no {lacking}: it is no complete checkpoint (`save_pretrained` writes all of it)."
        )
    for file in files:
        if file.suffix == ".json":
            _read_json(file)
        elif file.suffix == ".safetensors":
            _tensors(file)
    return files


def parameters(files: list[Path]) -> int:
    """How many numbers the weights among `files` are."""
    tensors = [tensor for file in files if file.suffix == ".safetensors" for tensor in _tensors(file)]
    return sum(math.prod(tensor["shape"]) for tensor in tensors)


def _shards(directory: Path) -> set[str]:
    """The weight files that the index of a checkpoint in several of them names."""
    index = directory / model_files.SHARD_INDEX
    if not index.is_file():
        return set()
    content = _read_json(index)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise PrepareError(f"{index} has no weight_map that names the weight files; copy the checkpoint again.")
    return set(shards.values())


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise PrepareError(f"{file} is not JSON ({error}); copy the checkpoint again.") from None


def _tensors(file: Path) -> list[dict[str, Any]]:
    """What a safetensors file's header says of each tensor: `dtype`, `shape`, `data_offsets`.

    The format: 8 bytes with the header's length, the header in JSON, the tensors' bytes up to the file's end.
    """
    with file.open("rb") as content:
        start = content.read(8)
        length = int.from_bytes(start, "little")
        if start == b"version ":
            raise PrepareError(f"{file} is a pointer of Git LFS, not the weights; run `git lfs pull`.")
        try:
            if length > LONGEST_HEADER:
                raise ValueError("header too long")
            header: dict[str, dict[str, Any]] = json.loads(content.read(length))
            tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
            end = 8 + length + max((tensor["data_offsets"][1] for tensor in tensors), default=0)
            sum(math.prod(tensor["shape"]) for tensor in tensors)  # which `parameters` relies on
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise PrepareError(f"{file} is not a safetensors file; copy the checkpoint again.") from None
    size = file.stat().st_size
    if size != end:
        raise PrepareError(f"{file} has {size:,} bytes where its header says {end:,}; copy the checkpoint again.")
    return tensors
