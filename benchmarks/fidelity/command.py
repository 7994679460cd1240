"""`python -m benchmarks fidelity`: a checkpoint at each precision against transformers in float32, on held-out text."""

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.progress import Progress

from benchmarks.checkpoints import QUANTIZE, checkpoint, model_directory
from benchmarks.errors import InputError, NotInstalledError
from benchmarks.fidelity.llama_cpp import KINDS, LlamaCpp
from benchmarks.peers.session import PeerFailedError
from benchmarks.results import Recorder
from benchmarks.weights import weights_bytes
from compiler import check
from compiler.errors import CompileError
from engines.errors import LoadError

WHAT = (
    "One checkpoint, compiled at each quantisation and in transformers in bfloat16, each compared with transformers in "
    "float32 by the compiler's own check: perplexity and most likely tokens over windows of held-out text, and the "
    "largest difference of logits after random prompts, relative to the largest logit."
)
HALF = "bfloat16"
KEPT = ("perplexity", "divergence", "positions", "agreement", "difference", "correlation", "size_bytes")
"""Of what the check finds. Its times are left out: whoever else uses the machine is in them."""
FAILURES = (CompileError, InputError, LoadError, NotInstalledError, OSError, PeerFailedError, RuntimeError, ValueError)
WINDOW = 512
"""Tokens of the text that are read together."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's parameters."""
    add = parser.add_argument
    add("--checkpoint", default="models/demo", help="checkpoint directory, default models/demo")
    add("--text", type=Path, help="held-out text; default the checkpoint's heldout.txt")
    add("--quantize", nargs="+", choices=QUANTIZE, default=list(QUANTIZE), help="quantisations, default all")
    add("--peers", action="store_true", help="also llama.cpp's own precisions")
    add("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results file")
    add("--name", default="fidelity", help="name of the results file, default fidelity")


def run(options: argparse.Namespace) -> Path:
    """Compile what has not been compiled before, compare, save after each; returns the results file's path."""
    source = checkpoint(options.checkpoint)
    text = options.text or source / "heldout.txt"
    if not (text.is_file() and text.stat().st_size):
        raise InputError(f"{text} holds no text; --text names a file of text the model was not trained on.")
    if len(set(options.quantize)) < len(options.quantize):
        raise InputError(f"--quantize names one twice: {' '.join(options.quantize)}.")
    about = {"checkpoint": source.resolve().name, "text": text.name}
    sizes = {"size_bytes": check.size_on_disk(source), "weights_bytes": weights_bytes(source)}
    recorder = Recorder(options.out / f"{options.name}.json", "fidelity", WHAT, {**about, **sizes})
    recorder.data = {"samples": [], "failed": {}}
    ids = check.held_out(source, check.read_text(text))
    with Progress() as progress, tempfile.TemporaryDirectory() as scratch:
        peers = KINDS if options.peers else ()
        task = progress.add_task("compile and compare", total=1 + len(options.quantize) + len(peers))

        def add(name: str, sample: Callable[[], dict[str, Any]]) -> None:
            progress.update(task, description=name)
            try:
                recorder.data["samples"].append({"variant": name, **sample()})
            except FAILURES as error:
                recorder.data["failed"][name] = str(error).rstrip(".")
            recorder.save(complete=False)
            progress.advance(task)

        add(f"transformers, {HALF}", partial(_sample, source, source, ids, HALF))
        for precision in options.quantize:
            add(f"compiled, {precision}", partial(_compiled_sample, source, precision, ids))
        llama_cpp = cache(partial(LlamaCpp, source, ids, WINDOW, Path(scratch)))
        for kind in peers:
            add(f"llama.cpp, {kind}", partial(_peer_sample, llama_cpp, kind))
    recorder.save(complete=True)
    return recorder.path


def _sample(source: Path, directory: Path, ids: npt.NDArray[np.int64], kind: str) -> dict[str, Any]:
    """What the compiler's check finds of a directory, and the bytes of its weights."""
    found = check.compare(source, directory, ids, kind, WINDOW)
    return {**{key: getattr(found, key) for key in KEPT}, "weights_bytes": weights_bytes(directory)}


def _compiled_sample(source: Path, quantize: str, ids: npt.NDArray[np.int64]) -> dict[str, Any]:
    return _sample(source, _artifact(source, quantize), ids, "compiled")


def _peer_sample(peer: Callable[[], LlamaCpp], kind: str) -> dict[str, Any]:
    return peer().sample(kind)


def _artifact(source: Path, quantize: str) -> Path:
    """The checkpoint compiled. Raises InputError where what lies there was compiled from other weights."""
    from compiler.package import checkpoint_digest  # imports torch

    directory = model_directory(f"{source}:{quantize}")
    manifest: dict[str, Any] = json.loads((directory / "manifest.json").read_text())
    if manifest["model"]["sha256"] != checkpoint_digest(source):
        raise InputError(f"{directory} was compiled from other weights; remove it to have {source} compiled again.")
    return directory
