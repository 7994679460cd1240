"""`python -m benchmarks fidelity`: a checkpoint at each precision against transformers in float32, on held-out text."""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.checkpoints import QUANTIZE, checkpoint, model_directory
from benchmarks.errors import InputError
from benchmarks.results import Recorder
from benchmarks.weights import weights_bytes
from compiler import check
from engines.errors import LoadError

WHAT = (
    "One checkpoint, compiled at each quantisation and in transformers in bfloat16, each compared with transformers in "
    "float32 by the compiler's own check: perplexity and most likely tokens over windows of held-out text, and the "
    "largest difference of logits after random prompts, relative to the largest logit."
)
HALF = "bfloat16"
KEPT = ("perplexity", "positions", "agreement", "difference", "correlation", "size_bytes")
"""Of what the check finds. Its times are left out: whoever else uses the machine is in them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's parameters."""
    add = parser.add_argument
    add("--checkpoint", default="models/demo", help="checkpoint directory, default models/demo")
    add("--text", type=Path, help="held-out text; default the checkpoint's heldout.txt")
    add("--quantize", nargs="+", choices=QUANTIZE, default=list(QUANTIZE), help="quantisations, default all")
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
    with Progress() as progress:
        task = progress.add_task("compile and compare", total=1 + len(options.quantize))
        for precision in (HALF, *options.quantize):
            name = f"transformers, {HALF}" if precision == HALF else f"compiled, {precision}"
            progress.update(task, description=name)
            try:
                directory = source if precision == HALF else _artifact(source, precision)
                found = check.compare(source, directory, text, HALF if precision == HALF else "compiled")
            except (InputError, LoadError, OSError, RuntimeError, ValueError) as error:
                recorder.data["failed"][name] = str(error).rstrip(".")
            else:
                figures = {key: getattr(found, key) for key in KEPT}
                sample = {"variant": name, **figures, "weights_bytes": weights_bytes(directory)}
                recorder.data["samples"].append(sample)
            recorder.save(complete=False)
            progress.advance(task)
    recorder.save(complete=True)
    return recorder.path


def _artifact(source: Path, quantize: str) -> Path:
    """The checkpoint compiled. Raises InputError where what lies there was compiled from other weights."""
    from compiler.package import checkpoint_digest  # imports torch

    directory = model_directory(f"{source}:{quantize}")
    manifest: dict[str, Any] = json.loads((directory / "manifest.json").read_text())
    if manifest["model"]["sha256"] != checkpoint_digest(source):
        raise InputError(f"{directory} was compiled from other weights; remove it to have {source} compiled again.")
    return directory
