"""Weights, libraries and the checkpoint's own files -> an artifact directory, complete or not there at all.

Everything is written into a temporary directory beside the target, the manifest last, and renamed into place, so a
compiler killed half-way leaves nothing that loads. Knows nothing of graphs.
"""

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from compiler.errors import CompileError
from engines.artifact import MANIFEST, digest

_ALIGNMENT = 64
_COPIED = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A directory that becomes `target` if the block ends well, and vanishes if not: `target` is then as it was.

    An artifact already there is replaced as a whole: a process that has mapped its files keeps them, whereas writing
    into them would end it. Where `target` is a symbolic link, what it points to is replaced.
    """
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and not (target / MANIFEST).exists() and any(target.iterdir()):
        raise CompileError(f"{target} exists and is not a compiled model; choose another output directory.")
    staged = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    staged.chmod(0o755)
    replaced = staged.with_name(f"{staged.name}-replaced")
    try:
        yield staged
        if target.exists():
            os.rename(target, replaced)
        os.rename(staged, target)
    finally:
        if replaced.exists() and not target.exists():  # interrupted between the two
            os.rename(replaced, target)
        shutil.rmtree(staged, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def write_weights(path: Path, constants: Mapping[str, Tensor]) -> list[list[Any]]:
    """Write each distinct tensor once, 64-byte aligned. Returns the manifest's constants: name, offset, bytes."""
    places: dict[tuple[Any, ...], tuple[int, int]] = {}
    rows: list[list[Any]] = []
    with path.open("wb") as file:
        for name, tensor in tqdm(constants.items(), desc="weights", unit="tensor", leave=False):
            key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
            if key not in places:
                file.write(b"\0" * (-file.tell() % _ALIGNMENT))
                data = tensor.detach().contiguous().numpy()
                places[key] = (file.tell(), data.nbytes)
                file.write(data.data if data.size else b"")
            rows.append([name, *places[key]])
        file.write(b"\0" * (-file.tell() % _ALIGNMENT))
    return rows


def copy_checkpoint_files(checkpoint: Path, staged: Path) -> None:
    """The chat template and settings, unchanged."""
    for name in _COPIED:
        if (checkpoint / name).exists():
            shutil.copyfile(checkpoint / name, staged / name)


def revision(checkpoint: Path, digest: str) -> str:
    """The commit of a hub snapshot, or else the start of the checkpoint's own digest."""
    resolved = checkpoint.resolve()
    return resolved.name if resolved.parent.name == "snapshots" else digest[:12]


def checkpoint_digest(checkpoint: Path) -> str:
    """One sha256 over the checkpoint's configuration and weights: what the artifact was made from."""
    digest = hashlib.sha256()
    for path in sorted([checkpoint / "config.json", *checkpoint.glob("*.safetensors")]):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def write_manifest(staged: Path, description: Mapping[str, Any]) -> None:
    """Finish the artifact: sizes and checksums of every file beside what `description` says, and its own sha256."""
    paths = sorted(path for path in staged.rglob("*") if path.is_file())
    add_files(staged, {**description, "files": {}}, paths)


def add_files(directory: Path, content: Mapping[str, Any], paths: Sequence[Path]) -> None:
    """Write an artifact's manifest again: `content`, to which come the sizes and checksums of `paths`."""
    files = dict(content["files"])
    for path in paths:
        files[str(path.relative_to(directory))] = file_entry(path)
        path.chmod(0o644)
    content = {**content, "files": files}
    (directory / MANIFEST).write_text(json.dumps({**content, "sha256": digest(content)}, indent=1) + "\n")


def file_entry(path: Path) -> dict[str, Any]:
    """What the manifest says of a file."""
    sha256, crc32 = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            sha256.update(block)
            crc32 = zlib.crc32(block, crc32)
    return {"bytes": path.stat().st_size, "sha256": sha256.hexdigest(), "crc32": crc32}
