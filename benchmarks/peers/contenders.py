"""Who is measured: programs, precisions, the settings tried for each, and where each one's environment is."""

import json
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import NotInstalledError
from benchmarks.peers.session import PeerFailedError
from benchmarks.variants import Variant

ENVIRONMENTS = Path("build/benchmarks/peers")
CONVERTED = Path("build/benchmarks/converted")
WORKERS = Path(__file__).parent / "workers"


@dataclass(frozen=True)
class Peer:
    """An engine that is not ours."""

    name: str
    module: str
    """What its environment must be able to import."""
    worker: str
    converter: str | None
    """The program that makes its files from a checkpoint; None where it reads the checkpoint itself."""
    precisions: tuple[str, ...]
    flags: tuple[tuple[str, ...], ...] = ((),)
    """Sets of flags to try; the fastest is measured."""
    environment: str | None = None
    """The folder in ENVIRONMENTS; None for the project's own environment."""
    together: bool = False
    """Whether its worker also takes many prompts at once."""


PEERS = (
    Peer("transformers", "transformers", "transformers_worker.py", None, ("float32", "bfloat16")),
    Peer(
        "transformers, load per request", "transformers", "transformers_worker.py", None, ("bfloat16",), (("reload",),)
    ),
    Peer(
        "llama.cpp", "llama_cpp", "llama_cpp_worker.py", "convert_gguf.py", ("float32", "int8", "int4"),
        ((), ("no_extra_buffers",), ("flash_attention",)), "llama-cpp-python", together=True,
    ),
    Peer(
        "CTranslate2", "ctranslate2", "ctranslate2_worker.py", "convert_ctranslate2.py", ("float32", "int8"),
        environment="ctranslate2", together=True,
    ),
    Peer(
        "OpenVINO", "openvino_genai", "openvino_worker.py", "convert_openvino.py", ("float32", "int8", "int4"),
        ((), ("f32",)), "openvino-genai", together=True,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Contender:
    """One engine at one precision, ready to be started with a number of threads and a set of flags."""

    name: str
    precision: str
    python: str
    worker: Path
    source: Path
    flags: tuple[tuple[str, ...], ...] = ((),)

    @property
    def label(self) -> str:
        """Name and precision, which a name may already hold."""
        return self.name if self.precision in self.name else f"{self.name} {self.precision}"

    def command(self, threads: int, flags: Sequence[str]) -> list[str]:
        """How to start its worker."""
        return [self.python, str(self.worker), str(self.source), self.precision, str(threads), *flags]


def interpreter(peer: Peer, overrides: dict[str, str]) -> str:
    """The Python that has the peer. Raises NotInstalledError with the command that installs it."""
    python = sys.executable
    if peer.environment is not None:
        python = overrides.get(peer.environment, str(ENVIRONMENTS / peer.environment / "bin" / "python"))
    probe = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({peer.module!r}) is None)"
    try:
        found = subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode == 0
    except OSError:
        found = False
    if not found:
        remedy = "make bench-peers" if peer.environment else "pip install -r requirements.txt"
        raise NotInstalledError(f"{peer.name} is not installed; {remedy}")
    return python


def prepare(peer: Peer, precision: str, checkpoint: Path, python: str) -> Contender:
    """Convert the checkpoint unless it has been before. Raises PeerFailedError when that fails."""
    source = checkpoint
    if peer.converter is not None:
        source = CONVERTED / checkpoint.name / f"{peer.environment}-{precision}"
        if not source.exists():
            source.parent.mkdir(parents=True, exist_ok=True)
            partial = source.with_name(f"{source.name}.partial")
            command = [python, str(WORKERS / peer.converter), str(checkpoint), str(partial), precision]
            converted = subprocess.run(command, capture_output=True, text=True, check=False)
            if converted.returncode:
                last = next(iter(reversed(converted.stderr.strip().splitlines())), "no message")
                raise PeerFailedError(f"its conversion failed: {last[:300]}")
            partial.rename(source)
    return Contender(peer.name, precision, python, WORKERS / peer.worker, source, peer.flags)


def prepare_each(
    names: Collection[str], precision: str, checkpoint: Path, overrides: dict[str, str]
) -> tuple[list[Contender], list[str]]:
    """The peers of these names that can take part, and for each other one a sentence that says why not."""
    found, missing = [], []
    for peer in PEERS:
        if peer.name in names:
            try:
                found.append(prepare(peer, precision, checkpoint, interpreter(peer, overrides)))
            except (NotInstalledError, PeerFailedError) as error:
                missing.append(f"{peer.name}: {error}")
    return found, missing


def ours(variant: Variant) -> Contender:
    """One of the project's own engines."""
    return Contender(variant.name, _precision(variant), sys.executable, WORKERS / "engine_worker.py", variant.directory)


def _precision(variant: Variant) -> str:
    """What an artifact's manifest says of itself, else the checkpoint's own type."""
    manifest = variant.directory / "manifest.json"
    if not manifest.is_file():
        return variant.environment.get("DTYPE", "auto")
    content = json.loads(manifest.read_text())
    return str(content.get("quantization") or content.get("dtype") or "compiled")
