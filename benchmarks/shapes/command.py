"""`python -m benchmarks shapes`: answers in shape beside free text of the same model, each round in a fresh process."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.errors import InputError
from benchmarks.results import Recorder
from benchmarks.variants import Variant, add_variant_arguments, described, interleaved, parse_variants

WHAT = (
    "A fresh process loads the model, answers free text twice, and then the first request for a JSON schema: what that "
    "one's preparation takes beyond a free one's is the price of llguidance's import, the vocabulary's bytes and the "
    "schema. Then free text and JSON take turns; their speed is tokens per second after the first token. Masks are "
    "timed alone, taking the token and what it forces included."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's parameters."""
    add_variant_arguments(parser)
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="fresh processes of each variant, default 5")
    add("--calls", type=int, default=10, help="answers of each kind in a process, default 10")
    add("--prompt", type=int, default=64, help="prompt length, tokens, default 64")
    add("--tokens", type=int, default=60, help="length of the free text, tokens, default 60")
    add("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results file")
    add("--name", default="shapes", help="name of the results file, default shapes")


def run(options: argparse.Namespace) -> Path:
    """Measure, saving after every process; returns the results file's path."""
    for name in ("rounds", "calls", "prompt", "tokens"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} {getattr(options, name)}: at least one is needed.")
    variants = parse_variants(options.model)
    settings = {
        "models": described(variants),
        "rounds": options.rounds,
        "calls": options.calls,
        "prompt_tokens": options.prompt,
        "free_tokens": options.tokens,
    }
    recorder = Recorder(options.out / f"{options.name}.json", "shapes", WHAT, settings)
    recorder.data = {"samples": []}
    with Progress() as progress:
        task = progress.add_task("processes", total=options.rounds * len(variants))
        for i, variant in interleaved(variants, options.rounds):
            recorder.data["samples"].append({"variant": variant.name, "round": i, **_measure(variant, options, i)})
            recorder.save(complete=False)
            progress.advance(task)
    recorder.save(complete=True)
    return recorder.path


def _measure(variant: Variant, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """What one fresh process says. Raises InputError when it says nothing."""
    command = [sys.executable, "-m", "benchmarks.shapes.worker", "--seed", str(seed)]
    for name in ("calls", "tokens", "prompt"):
        command += [f"--{name}", str(getattr(options, name))]
    environment = {"MODEL_DIR": str(variant.directory), "HF_HUB_OFFLINE": "1", **variant.environment}
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        last = next(iter(reversed(done.stderr.strip().splitlines())), "no message")
        raise InputError(f"--model {variant.name}: the process ended with an error: {last[:300]}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured
