"""`python -m benchmarks deadlines`: long prompts and many choices with little time left, machine quiet and busy."""

import argparse
import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks import answers
from benchmarks.errors import InputError
from benchmarks.results import Recorder
from benchmarks.variants import add_variant_arguments, described, interleaved, parse_variants
from benchmarks.warm.command import PLAIN_IDS
from tools.emulator import DIE_WITH_PARENT
from tools.local_function import LocalFunction

WHAT = (
    "Requests with little of their invocation left, through the handler under its runtime client: how long after the "
    "event was there its whole answer had left, beside the time that the invocation had. No prompt was read before. "
    "`busy`: a process that never rests on every CPU. `first`: the first request of a new environment, which knows no "
    "costs but its warm-up's."
)
CASES = {
    "prompt": ({"max_tokens": 400}, (0.205, 0.3, 0.6, 3.0, 8.0)),
    "16 choices": ({"max_tokens": 100, "n": 16}, (1.0, 2.0, 8.0)),
}
"""What is asked beside the prompt, and the seconds left that are tried."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's parameters."""
    add_variant_arguments(parser)
    add = parser.add_argument
    add("--calls", type=int, default=10, help="calls of each kind, default 10")
    add("--prompt", type=int, default=1988, help="prompt length, tokens, default 1,988")
    add("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results file")
    add("--name", default="deadlines", help="name of the results file, default deadlines")


def run(options: argparse.Namespace) -> Path:
    """Measure, saving after every round; returns the results file's path."""
    for name, value in (("calls", options.calls), ("prompt", options.prompt)):
        if value < 1:
            raise InputError(f"--{name} {value}: at least one is needed.")
    variants = parse_variants(options.model)
    settings = {
        "models": described(variants),
        "calls": options.calls,
        "prompt_tokens": options.prompt,
    }
    recorder = Recorder(options.out / f"{options.name}.json", "deadlines", WHAT, settings)
    recorder.data = {"samples": []}
    cases = [(name, left) for name, (_, lefts) in CASES.items() for left in lefts]
    with Progress() as progress:
        task = progress.add_task("requests", total=len(variants) * 2 * options.calls * (len(cases) + 1))
        for variant in variants:
            env = {"MODEL_DIR": str(variant.directory), "HF_HUB_OFFLINE": "1", "MAX_CHOICES": "16", "PREFIX_CACHE": "0"}
            env |= {"GATEWAY_TIMEOUT": "900", **variant.environment}

            def note(
                machine: str, case: str, left: float, answer: tuple[float, bool], name: str = variant.name
            ) -> None:
                took, cut = answer
                sample = {"variant": name, "machine": machine, "case": case, "left_s": left, "took_s": took, "cut": cut}
                recorder.data["samples"].append(sample)
                recorder.save(complete=False)
                progress.advance(task)

            for machine in ("quiet", "busy"):
                with _load(machine == "busy"):
                    for i in range(options.calls):
                        with LocalFunction(env) as function:
                            function.invoke({"source": "aws.events", "detail-type": "Scheduled Event"})  # which loads
                            note(machine, "first", 0.3, _call(function, options.prompt, CASES["prompt"][0], 0.3, i))
                    with LocalFunction(env) as function:
                        for i in range(3):
                            _call(function, options.prompt, {"max_tokens": 20}, 300, -1 - i)
                        for i, (case, left) in interleaved(cases, options.calls):
                            note(machine, case, left, _call(function, options.prompt, CASES[case][0], left, i))
    recorder.save(complete=True)
    return recorder.path


@contextlib.contextmanager
def _load(busy: bool) -> Iterator[None]:
    """A process on every CPU that does nothing but run, where `busy`."""
    count = len(os.sched_getaffinity(0)) if busy else 0
    command = [sys.executable, "-c", DIE_WITH_PARENT, sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _call(function: LocalFunction, prompt: int, asked: dict[str, Any], left: float, seed: int) -> tuple[float, bool]:
    """Seconds until the answer was there, and whether it says that the deadline cut it."""
    draw = random.Random(seed)
    ids = [draw.choice(PLAIN_IDS) for _ in range(prompt)]
    event = {"prompt": ids, "temperature": 0, "ignore_eos": True, **asked}
    started = time.monotonic()
    answer = function.start(event, left).wait(300)
    took = answer.chunks[-1].at - started if answer.chunks else time.monotonic() - started
    if not answer.complete or answer.error is not None or b'"choices"' not in answer.body:
        raise InputError(f"The function does not answer: {answers.reason(answer)}")
    return took, b'"cut_by_deadline"' in answer.body
