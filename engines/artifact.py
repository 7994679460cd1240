"""What a compiled artifact's manifest says, and the checks that say whether it is whole.

Nothing here opens a library or maps weights. The compiler writes what is read here. Every start checks the manifest
against its own checksum, all files' sizes, the checksums of the code that will run, and that this code was compiled for
the manifest's numbers: after that native code can trust them. Weights, and pages of prompts that were read at compile
time, are compared with their checksums on request.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from engines.base import PAGE_TOKENS
from engines.errors import LoadError
from engines.prompts import HEADER_BYTES, file_name, page_numbers
from engines.sha256 import sha256

FORMAT = 5
"""Version of the manifest and of everything it describes. A reader accepts exactly its own."""

MANIFEST = "manifest.json"
WEIGHTS = "weights.bin"
NUMBERS = ("vocab_size", "context_length", "max_rows", "cache", "constants")
"""The manifest's entries that native code relies on. Libraries repeat their `stamp`."""
RECOMPILE = "compile the checkpoint again with `python -m compiler`"


class Constant(Struct, frozen=True):
    """A named piece of the weight file, sizes in bytes."""

    name: str
    offset: int
    size: int


class File(Struct, frozen=True):
    """One file of an artifact, as the compiler wrote it."""

    size: int
    sha256: str
    crc32: int
    """Of code this is compared at every start, in 0.4 ms per MB on any CPU; sha256 takes up to 2."""


class Artifact(Struct, frozen=True):
    """A checked manifest. Sizes in elements or bytes as named; `directory` holds the files."""

    directory: Path
    levels: list[str]
    dtype: str
    vocab_size: int
    context_length: int
    max_rows: int
    """Most tokens of one forward pass."""
    cache_elements: int
    """Elements of the KV cache per token, all layers together."""
    cache_element_bytes: int
    constants: list[Constant]
    files: dict[str, File]
    """By path, relative to the directory."""
    stamp: str
    """What the libraries must hold to be those of this manifest."""
    prompts: list[list[int]]
    """Token ids, whole pages of them, of the prompts that were read at compile time."""
    prompt_levels: list[str]
    """The levels whose code read the prompts."""
    prompt_stamp: str
    """What the files of the prompts' pages must begin with to be those of this manifest."""

    @property
    def page_bytes(self) -> int:
        """Of one page of the KV cache."""
        return PAGE_TOKENS * self.cache_elements * self.cache_element_bytes

    def verify(self) -> None:
        """Compare every file with its sha256. Reads the whole artifact: seconds per gigabyte."""
        import hashlib  # OpenSSL, whose code is the fastest, and for this alone: a start has no use for it

        for name, expected in self.files.items():
            with (self.directory / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected.sha256:
                    raise LoadError(f"{self.directory / name} is damaged (its sha256 is wrong); {RECOMPILE}.")

    def check_code(self, level: str) -> None:
        """Raises LoadError unless the libraries of `level`, and the tokenizer's, are bit for bit the manifest's own."""
        stamped = False
        beside = [self.directory / name for name in self.files if name.endswith(".so") and "/" not in name]
        for path in [*beside, *sorted((self.directory / level).iterdir())]:
            expected, code = self.files.get(str(path.relative_to(self.directory))), path.read_bytes()
            if expected is None or zlib.crc32(code) != expected.crc32:
                raise LoadError(f"{path} is damaged (its checksum is wrong); {RECOMPILE}.")
            stamped = stamped or self.stamp.encode() in code
        if not stamped:
            raise LoadError(f"{self.directory / MANIFEST} is not the one that the code of {level} has; {RECOMPILE}.")


def stamp(manifest: Mapping[str, Any]) -> str:
    """A string that stands for the numbers in `manifest` that native code relies on."""
    return f"compiled for {digest({name: manifest[name] for name in NUMBERS})}"


def prompt_stamp(manifest: Mapping[str, Any]) -> str:
    """A string that stands for all of `manifest` but the files of its prompts' pages, which begin with it."""
    pages = {file_name(level) for level in manifest["prompts"]["levels"]}
    files = {name: entry for name, entry in manifest["files"].items() if name not in pages}
    return f"prompts read by {digest({**manifest, 'files': files})}"


def digest(content: Mapping[str, Any]) -> str:
    """sha256 of a JSON object, however it is indented and ordered: the manifest's own, over all its other entries."""
    return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read(directory: Path) -> Artifact:
    """The artifact in `directory`, after the checks that cost nothing: format, checksum, completeness, sizes."""
    path = directory / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        if manifest["format"] != FORMAT:
            raise LoadError(f"{path} has a format that is not {FORMAT}, which this engine reads; {RECOMPILE}.")
        if manifest.pop("sha256") != digest(manifest):
            raise LoadError(f"{path} is damaged (its own sha256 is wrong); {RECOMPILE}.")
        artifact = Artifact(
            directory,
            [_text(level) for level in manifest["levels"]],
            _text(manifest["dtype"]),
            _whole(manifest["vocab_size"], least=1),
            _whole(manifest["context_length"], least=1),
            _whole(manifest["max_rows"], least=1),
            _whole(manifest["cache"]["elements_per_token"], least=1),
            _whole(manifest["cache"]["element_bytes"], least=1),
            [Constant(_text(n), _whole(o), _whole(s)) for n, o, s in manifest["constants"]],
            {
                _text(name): File(_whole(entry["bytes"]), _text(entry["sha256"]), _whole(entry["crc32"]))
                for name, entry in manifest["files"].items()
            },
            stamp(manifest),
            [[_whole(token) for token in prompt] for prompt in manifest["prompts"]["tokens"]],
            [_text(level) for level in manifest["prompts"]["levels"]],
            prompt_stamp(manifest) if manifest["prompts"]["tokens"] else "",
        )
        _check_files(artifact)
        _check_prompts(artifact)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise LoadError(f"{path} is not the manifest of a compiled model ({error!r}); {RECOMPILE}.") from None
    return artifact


def _whole(value: object, least: int = 0) -> int:
    if type(value) is not int or not least <= value < 2**63:
        raise ValueError(f"a number that is not whole, or below {least}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("a text that is none")
    return value


def _check_files(artifact: Artifact) -> None:
    for name, file in artifact.files.items():
        path = artifact.directory / name
        try:
            found = path.stat().st_size
        except OSError as error:
            raise LoadError(f"{path} is missing; {RECOMPILE}.") from error
        if found != file.size:
            raise LoadError(f"{path} has {found} bytes instead of {file.size}; {RECOMPILE}.")
    if WEIGHTS not in artifact.files or not artifact.levels:
        raise LoadError(f"{artifact.directory / MANIFEST} names no weights or no code; {RECOMPILE}.")
    total = artifact.files[WEIGHTS].size
    if any(c.offset % 64 or c.offset + c.size > total for c in artifact.constants):
        raise LoadError(f"{artifact.directory / MANIFEST} places weights outside {WEIGHTS}; {RECOMPILE}.")


def _check_prompts(artifact: Artifact) -> None:
    """LoadError unless every prompt is one of this model's, and each level's file has exactly their pages."""
    lengths = [len(prompt) for prompt in artifact.prompts]
    if (
        any(length % PAGE_TOKENS or not 0 < length < artifact.context_length for length in lengths)
        or any(max(prompt) >= artifact.vocab_size for prompt in artifact.prompts)
        or bool(artifact.prompts) != bool(artifact.prompt_levels)
        or not set(artifact.prompt_levels) <= set(artifact.levels)
    ):
        raise LoadError(f"{artifact.directory / MANIFEST} names prompts that this model cannot have; {RECOMPILE}.")
    pages = 1 + max((number for row in page_numbers(artifact.prompts) for number in row), default=-1)
    for level in artifact.prompt_levels:
        name = file_name(level)
        if name not in artifact.files or artifact.files[name].size != HEADER_BYTES + pages * artifact.page_bytes:
            raise LoadError(f"{artifact.directory / name} has not the {pages} pages of its prompts; {RECOMPILE}.")
