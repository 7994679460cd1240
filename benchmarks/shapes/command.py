"""`python -m benchmarks shapes`: answers in shape beside free text of the same model, each round in a fresh process."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.checkpoints import checkpoint
from benchmarks.errors import InputError, NotInstalledError
from benchmarks.peers.contenders import Contender
from benchmarks.peers.session import PeerFailedError
from benchmarks.results import Recorder
from benchmarks.shapes import peers
from benchmarks.shapes.vocabularies import SIZES, GreedyTokenizer
from benchmarks.variants import Variant, add_variant_arguments, described, interleaved, parse_variants

WHAT = (
    "A fresh process loads the model, answers free text twice, and then the first request for a JSON schema: what that "
    "one's preparation takes beyond a free one's is the price of llguidance's import, the vocabulary's bytes and the "
    "schema; of a peer it is the time to the first token. Then free text, JSON and text that may call a tool take "
    "turns, greedy and without drafts; their speed is tokens per second after the first token. Masks are timed alone, "
    "along written texts, with as many tokens of a real vocabulary, taking the token and what it forces included."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's parameters."""
    add_variant_arguments(parser)
    add = parser.add_argument
    add("--peers-of", metavar="CHECKPOINT", help="measure peers on this checkpoint or shape too, in the same turns")
    add("--python", action="append", default=[], metavar="PEER=PATH", help="the interpreter of a peer's environment")
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
    others, missing = _peers(options)
    settings = {
        "models": described(variants),
        "peers": [other.label for other in others],
        "rounds": options.rounds,
        "calls": options.calls,
        "prompt_tokens": options.prompt,
        "free_tokens": options.tokens,
    }
    recorder = Recorder(options.out / f"{options.name}.json", "shapes", WHAT, settings)
    recorder.data = {"samples": [], "masks": [], "skipped": missing}
    sizes: list[int] = []
    try:
        GreedyTokenizer(min(SIZES))
        sizes += SIZES
    except NotInstalledError as error:
        recorder.data["skipped"].append(f"masks: {error}")
    things: list[Variant | Contender | int] = [*variants, *others, *sizes]
    with Progress() as progress:
        task = progress.add_task("processes", total=options.rounds * len(things))
        for i, thing in interleaved(things, options.rounds):
            if isinstance(thing, int):
                recorder.data["masks"].append({"round": i, **_said(["benchmarks.shapes.masks", str(thing)], "masks")})
            else:
                recorder.data["samples"] += _measure(thing, options, i, recorder.data["skipped"])
            recorder.save(complete=False)
            progress.advance(task)
    recorder.save(complete=True)
    return recorder.path


def _peers(options: argparse.Namespace) -> tuple[list[Contender], list[str]]:
    if options.peers_of is None:
        return [], []
    pairs = [text.partition("=") for text in options.python]
    return peers.contenders(checkpoint(options.peers_of).resolve(), {name: path for name, _, path in pairs})


def _measure(
    thing: Variant | Contender, options: argparse.Namespace, i: int, failed: list[str]
) -> list[dict[str, Any]]:
    """One round's sample; none where a peer fails, which is noted. Raises InputError when a process of ours fails."""
    if isinstance(thing, Contender):
        try:
            said = peers.measure(thing, options.calls, options.tokens, options.prompt, i)
        except PeerFailedError as error:
            failed.append(f"{thing.label}: {error}")
            return []
        return [{"variant": thing.label, "round": i, **said}]
    command = ["benchmarks.shapes.worker", "--seed", str(i)]
    for name in ("calls", "tokens", "prompt"):
        command += [f"--{name}", str(getattr(options, name))]
    environment = {"MODEL_DIR": str(thing.directory), "HF_HUB_OFFLINE": "1", **thing.environment}
    return [{"variant": thing.name, "round": i, **_said(command, f"--model {thing.name}", environment)}]


def _said(command: list[str], what: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """What one fresh process of a module says. Raises InputError when it says nothing."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = next(iter(reversed(done.stderr.strip().splitlines())), "no message")
        raise InputError(f"{what}: the process ended with an error: {last[:300]}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured
