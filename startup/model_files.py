"""Which files of a model directory a server reads: names only, wherever the directory is (disk, hub, bucket)."""

from collections.abc import Collection
from pathlib import PurePosixPath

MANIFEST = "manifest.json"
"""Its presence makes a directory a compiled artifact; the files that it names are served."""
SHARD_INDEX = "model.safetensors.index.json"
SERVED = ("*.json", "*.safetensors", "*.jinja", "*.model", "merges.txt", "vocab.txt")
"""What a checkpoint is served from. Pickled weights are not: loading one runs its author's code."""


LATER = ("vocabulary.bin",)
"""Of an artifact's files, those that a start does not read: the first request for a shape does."""


def is_served(name: str) -> bool:
    """Whether a checkpoint's file is one that a server reads; files in subfolders never are."""
    return "/" not in name and any(PurePosixPath(name).match(pattern) for pattern in SERVED)


def missing_from(names: Collection[str]) -> str | None:
    """What a checkpoint with these files lacks, or None when it can be served."""
    for needed in ("config.json", "tokenizer.json"):
        if needed not in names:
            return needed
    if not any(name.endswith(".safetensors") for name in names):
        return "*.safetensors"
    return None
