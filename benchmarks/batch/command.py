"""`python -m benchmarks batch`: passes of many rows, engines with many sequences, servers and queues with many callers.

The three parts go into one results file, so that one machine and one run stand behind every ratio.
"""

import argparse
import os
from pathlib import Path

from benchmarks.batch import engines, rows, servers
from benchmarks.checkpoints import checkpoint
from benchmarks.errors import InputError
from benchmarks.results import Recorder
from benchmarks.variants import parse_variants

WHAT = (
    "The same weights with many sequences at once. Rows: one forward pass that appends one token to each of so many "
    "caches. Engines: so many prompts given at once to each engine's own way of batching, greedy, until all have their "
    "tokens. Callers: requests over HTTP and messages of a queue, through this server and handler and, where one is "
    "named, through those of an earlier state of the project."
)
PARTS = {"rows": rows.measure, "engines": engines.measure, "callers": servers.measure}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's parameters."""
    add = parser.add_argument
    add("--checkpoint", default="SmolLM2-135M", help="checkpoint directory, or a shape to make with random weights")
    add("--model", action="append", metavar="NAME=DIRECTORY", help="an artifact of ours made from it; default int8")
    add("--part", action="append", choices=PARTS, help="measure only this part; repeatable")
    add("--before", type=Path, metavar="CHECKOUT", help="another checkout of this project, for callers; the first")
    add("--only", action="append", help="measure only those other engines whose name holds this; repeatable")
    add("--python", action="append", default=[], metavar="PEER=PATH", help="the interpreter of a peer's environment")
    add("--prompt", type=int, default=128, help="prompt length, tokens, default 128")
    add("--tokens", type=int, default=48, help="tokens to generate, default 48")
    add("--sequences", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="numbers of sequences of the engines")
    add("--calls", type=int, default=5, help="rounds of everything, default 5")
    add("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results file")
    add("--name", default="batch", help="name of the results file, default batch")


def run(options: argparse.Namespace) -> Path:
    """Measure, saving as it goes; returns the results file's path."""
    for name, least in (("prompt", options.prompt), ("calls", options.calls), ("sequences", min(options.sequences))):
        if least < 1:
            raise InputError(f"--{name} {least}: at least one is needed.")
    if options.tokens < 2:
        raise InputError(f"--tokens {options.tokens}: at least two are needed.")
    if options.before is not None and not (options.before / "model_loader.py").is_file():
        raise InputError(f"--before {options.before} is not a checkout of this project.")
    source = checkpoint(options.checkpoint).resolve()
    settings = {
        "checkpoint": source.name,
        "prompt_tokens": options.prompt,
        "tokens": options.tokens,
        "calls": options.calls,
        "threads": len(os.sched_getaffinity(0)),
    }
    variants = parse_variants(options.model or ["compiled int8=SmolLM2-135M:int8"])
    for variant in variants:
        if variant.engine != "compiled":
            raise InputError(f"--model {variant.name}: an artifact is needed, and {variant.directory.name} is none.")
    recorder = Recorder(options.out / f"{options.name}.json", "batch", WHAT, settings)
    recorder.data = {"skipped": [], "failed": {}, "rows": [], "samples": [], "memory": [], "callers": []}
    for name in options.part or PARTS:
        PARTS[name](options, source, variants, recorder)
        recorder.save(complete=False)
    recorder.save(complete=True)
    return recorder.path
