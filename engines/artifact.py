"""What a compiled artifact's manifest says, and the checks that say whether this machine can run it.

Reads the manifest and file sizes; opens no library and maps no weights. The compiler writes what is read here.
"""

import hashlib
import json
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import LoadError

FORMAT = 3
"""Version of the manifest and of everything it describes. A reader accepts exactly its own."""

MANIFEST = "manifest.json"
WEIGHTS = "weights.bin"
RECOMPILE = "compile the checkpoint again with `python -m compiler`"

# What each level's code may use, best level first. x86-64-v4 here also asks for VNNI, which makes it worth having.
_V3 = frozenset(["avx2", "fma", "f16c", "bmi2"])
LEVEL_FLAGS: dict[str, frozenset[str]] = {
    "x86-64-v4": _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_vnni"},
    "x86-64-v3": _V3,
    # -march=armv8.2-a+fp16+dotprod: dot products, half precision (scalar and vector), atomics in one instruction.
    "aarch64": frozenset({"asimddp", "fphp", "asimdhp", "atomics"}),
}
_MACHINE_LEVELS = {"x86_64": ("x86-64-v4", "x86-64-v3"), "aarch64": ("aarch64",)}


def levels_here() -> tuple[str, ...]:
    """The levels of this machine's architecture, best first, whether or not its CPU reaches them."""
    return _MACHINE_LEVELS.get(platform.machine(), ())


def machine_of(level: str) -> str:
    """The architecture that has `level`, as `platform.machine` names it."""
    return next(machine for machine, levels in _MACHINE_LEVELS.items() if level in levels)


@dataclass(frozen=True)
class Constant:
    """A named piece of the weight file, sizes in bytes."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Artifact:
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
    files: dict[str, tuple[int, str]]
    """relative path -> (size in bytes, sha256)."""

    def verify(self) -> None:
        """Compare every file with its sha256. Reads the whole artifact: seconds per gigabyte."""
        for name, (_, expected) in self.files.items():
            with (self.directory / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    raise LoadError(f"{self.directory / name} is damaged (its sha256 is wrong); {RECOMPILE}.")


def read(directory: Path) -> Artifact:
    """The artifact in `directory`, after the checks that cost nothing: format, completeness, sizes of all files."""
    path = directory / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        if manifest["format"] != FORMAT:
            raise LoadError(f"{path} has format {manifest['format']}, this engine reads {FORMAT}; {RECOMPILE}.")
        artifact = Artifact(
            directory,
            list(manifest["levels"]),
            str(manifest["dtype"]),
            int(manifest["vocab_size"]),
            int(manifest["context_length"]),
            int(manifest["max_rows"]),
            int(manifest["cache"]["elements_per_token"]),
            int(manifest["cache"]["element_bytes"]),
            [Constant(str(n), int(o), int(s)) for n, o, s in manifest["constants"]],
            {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest["files"].items()},
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise LoadError(f"{path} is not the manifest of a compiled model ({error!r}); {RECOMPILE}.") from error
    _check_files(artifact)
    return artifact


def _check_files(artifact: Artifact) -> None:
    for name, (size, _) in artifact.files.items():
        path = artifact.directory / name
        try:
            found = path.stat().st_size
        except OSError as error:
            raise LoadError(f"{path} is missing; {RECOMPILE}.") from error
        if found != size:
            raise LoadError(f"{path} has {found} bytes instead of {size}; {RECOMPILE}.")
    if WEIGHTS not in artifact.files or not artifact.levels:
        raise LoadError(f"{artifact.directory / MANIFEST} names no weights or no code; {RECOMPILE}.")
    total = artifact.files[WEIGHTS][0]
    if any(c.offset < 0 or c.size < 0 or c.offset % 64 or c.offset + c.size > total for c in artifact.constants):
        raise LoadError(f"{artifact.directory / MANIFEST} places weights outside {WEIGHTS}; {RECOMPILE}.")
    if min(artifact.vocab_size, artifact.context_length, artifact.max_rows, artifact.cache_elements) < 1 or (
        artifact.cache_element_bytes not in (2, 4)
    ):
        raise LoadError(f"{artifact.directory / MANIFEST} has sizes that make no sense; {RECOMPILE}.")


def cpu_flags() -> frozenset[str]:
    """The instruction-set flags of this machine's CPU as Linux names them."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def choose_level(available: Iterable[str], flags: frozenset[str], wanted: str | None = None) -> str:
    """The best of the `available` levels that a CPU with `flags` can run, or `wanted` if it is one of those."""
    available = list(available)
    usable = [
        level
        for level, needed in LEVEL_FLAGS.items()
        if level in available and needed <= flags and level in levels_here()
    ]
    if wanted is not None:
        usable = [level for level in usable if level == wanted]
    if usable:
        return usable[0]
    asked = f"level {wanted}" if wanted else f"levels {', '.join(available)}"
    raise LoadError(
        f"The artifact's {asked} cannot run on this {platform.machine()} CPU; "
        f"compile it for one that can (`python -m compiler --isa ...`)."
    )
