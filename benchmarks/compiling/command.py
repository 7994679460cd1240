"""`python -m benchmarks compile`: how long the compiler takes, and the most memory that it holds."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.checkpoints import OPTIONS, QUANTIZE, checkpoint
from benchmarks.errors import InputError
from benchmarks.results import Recorder
from engines.weights import inspect_weights

WHAT = (
    "The compiler from a checkpoint on disk to a checked artifact, all levels of this machine's architecture, one "
    "process at a time. Memory is the peak of its largest process, pages mapped from files included; disk is all "
    "files of the artifact."
)
MODELS = ("SmolLM2-135M:int8", "SmolLM2-135M:int4")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's parameters."""
    add = parser.add_argument
    add(
        "--model",
        action="append",
        metavar="CHECKPOINT:PRECISION",
        help=f"a checkpoint directory or a known shape, and {', '.join(QUANTIZE)}; repeatable, default {MODELS[0]} "
        f"and {MODELS[1]}",
    )
    add("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results file")
    add("--name", default="compile", help="name of the results file, default compile")


def run(options: argparse.Namespace) -> Path:
    """Measure, saving after every compilation; returns the results file's path."""
    models = [_parsed(text) for text in options.model or MODELS]
    recorder = Recorder(options.out / f"{options.name}.json", "compile", WHAT, {})
    recorder.data = {"samples": []}
    with Progress() as progress:
        task = progress.add_task("", total=len(models))
        for source, quantize in models:
            progress.update(task, description=f"{source.name} to {quantize}")
            recorder.data["samples"].append(_measured(source, quantize))
            recorder.save(complete=False)
            progress.advance(task)
    recorder.save(complete=True)
    return recorder.path


def _parsed(text: str) -> tuple[Path, str]:
    name, _, quantize = text.rpartition(":")
    if quantize not in QUANTIZE:
        raise InputError(f"--model {text}: write CHECKPOINT:PRECISION, the precision one of {', '.join(QUANTIZE)}.")
    return checkpoint(name), quantize


def _measured(source: Path, quantize: str) -> dict[str, Any]:
    """One compilation. Raises InputError with the compiler's own sentence where it fails."""
    Path("build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=Path("build")) as folder, tempfile.TemporaryFile("w+") as said:
        target = Path(folder, "artifact")
        took = Path(folder, "took.json")
        command = [sys.executable, str(Path(__file__).with_name("measured_run.py")), str(took)]
        command += [sys.executable, "-m", "compiler", str(source), str(target), *OPTIONS[quantize]]
        if subprocess.run(command, stdout=subprocess.DEVNULL, stderr=said, check=False).returncode:
            said.seek(0)
            last = next(iter(reversed(said.read().strip().splitlines())), "no message")
            raise InputError(f"{source} cannot be compiled to {quantize}: {last[:300]}")
        return {
            "model": source.name,
            "quantize": quantize,
            "parameters": inspect_weights(source).parameters,
            **json.loads(took.read_text()),
            "artifact_bytes": sum(file.stat().st_size for file in target.rglob("*") if file.is_file()),
        }
