"""`python -m benchmarks drafts`: answers that copy and answers that do not, with drafts and without."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.checkpoints import SHAPES
from benchmarks.drafts import peers
from benchmarks.drafts.texts import FREE, TASKS
from benchmarks.errors import InputError
from benchmarks.peers.session import PeerFailedError
from benchmarks.results import Recorder
from benchmarks.variants import Variant, add_variant_arguments, described, interleaved, parse_variants

WHAT = (
    "Fresh processes answer with drafts and without, in turns; decoding is timed, from the first token to the last. "
    "The network computes every pass, and its logits are then made to say the answer that a good model would give, "
    "token by token, so that drafts are right where such an answer copies its prompt; free text is what the network "
    "says itself. Sequences: so many of the same request at once. Other engines cannot be told what to say: for them, "
    "and ours beside them, a checkpoint of that shape is made whose head says the same answers, and all look up drafts "
    "in the prompt alone."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's parameters."""
    add_variant_arguments(parser)
    add = parser.add_argument
    add("--peers-of", choices=SHAPES, help="measure other engines' prompt lookup on a checkpoint of this shape too")
    add("--python", action="append", default=[], metavar="PEER=PATH", help="the interpreter of a peer's environment")
    add("--rounds", type=int, default=3, help="fresh processes of each variant, default 3")
    add("--calls", type=int, default=3, help="answers of each kind in a process, default 3")
    add("--beside", type=int, default=4, help="sequences at once, beside one alone, default 4")
    add("--free", type=int, default=128, help="length of the free text, tokens, default 128")
    add("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results file")
    add("--name", default="drafts", help="name of the results file, default drafts")


def run(options: argparse.Namespace) -> Path:
    """Measure, saving after every process; returns the results file's path."""
    for name in ("rounds", "calls", "beside", "free"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} {getattr(options, name)}: at least one is needed.")
    variants = parse_variants(options.model or ["compiled int8=SmolLM2-135M:int8"])
    pairs = (text.partition("=") for text in options.python)
    others, missing = (
        peers.contenders(options.peers_of, {name: path for name, _, path in pairs}) if options.peers_of else ([], [])
    )
    counts = {name: getattr(options, name) for name in ("rounds", "calls", "beside", "free")}
    settings = {"models": described(variants), "answers": [*TASKS, FREE], **counts}
    recorder = Recorder(options.out / f"{options.name}.json", "drafts", WHAT, settings)
    recorder.data = {"samples": [], "peers": [], "skipped": missing}
    with Progress() as progress:
        task = progress.add_task("processes", total=options.rounds * (len(variants) + len(others)))
        for i, variant in interleaved(variants, options.rounds):
            for answer in _measure(variant, options, i):
                recorder.data["samples"].append({"variant": variant.name, "round": i, **answer})
            recorder.save(complete=False)
            progress.advance(task)
        for i, other in interleaved(others, options.rounds):
            try:
                said = peers.measure(other, options.calls)
            except PeerFailedError as error:
                said = []
                recorder.data["skipped"].append(f"{other.label}: {error}")
            recorder.data["peers"] += [{"engine": other.label, "round": i, **answer} for answer in said]
            recorder.save(complete=False)
            progress.advance(task)
    recorder.save(complete=True)
    return recorder.path


def _measure(variant: Variant, options: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """The answers of one fresh process. Raises InputError when it has none."""
    command = [sys.executable, "-m", "benchmarks.drafts.worker", "--seed", str(seed)]
    for name in ("calls", "beside", "free"):
        command += [f"--{name}", str(getattr(options, name))]
    environment = {"MODEL_DIR": str(variant.directory), "HF_HUB_OFFLINE": "1", **variant.environment}
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        last = next(iter(reversed(done.stderr.strip().splitlines())), "no message")
        raise InputError(f"--model {variant.name}: the process ended with an error: {last[:300]}")
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])["answers"]
    return answers
