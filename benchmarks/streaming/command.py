"""`python -m benchmarks streaming`: the same requests through a door that streams and one that does not."""

import argparse
import contextlib
import json
import random
import time
from pathlib import Path

from rich.progress import Progress

from benchmarks import answers
from benchmarks.errors import InputError
from benchmarks.results import Recorder
from benchmarks.variants import add_variant_arguments, described, interleaved, parse_variants
from benchmarks.warm.command import PLAIN_IDS
from tools.gateway import function_url_event, http_event
from tools.local_function import LocalFunction

WHAT = (
    "From the moment a request for a stream is there for the function until the first and the last byte of its "
    "answer's body have left it, through a Function URL that streams and through an HTTP API, which takes the events "
    "at once. The function runs under its runtime client against a Runtime API on this machine; a network adds to both "
    "alike. The first request of an environment is never counted."
)
DOORS = {"streamed": function_url_event, "whole": http_event}
LONGEST_S = 900


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's parameters."""
    add_variant_arguments(parser)
    add = parser.add_argument
    add("--calls", type=int, default=20, help="calls of each kind, default 20")
    add("--prompt", type=int, default=16, help="prompt length, tokens, default 16")
    add("--output", type=int, nargs="+", default=[20, 100, 400], help="output lengths, tokens")
    add("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results file")
    add("--name", default="streaming", help="name of the results file, default streaming")


def run(options: argparse.Namespace) -> Path:
    """Measure, saving after every round; returns the results file's path."""
    for name, least in (("calls", options.calls), ("prompt", options.prompt), ("output", min(options.output))):
        if least < 1:
            raise InputError(f"--{name} {least}: at least one is needed.")
    variants = parse_variants(options.model)
    settings = {
        "models": described(variants),
        "calls": options.calls,
        "prompt_tokens": options.prompt,
    }
    recorder = Recorder(options.out / f"{options.name}.json", "streaming", WHAT, settings)
    recorder.data = {"samples": []}
    with contextlib.ExitStack() as stack, Progress() as progress:
        functions = {}
        for variant in variants:
            env = {
                "MODEL_DIR": str(variant.directory),
                "HF_HUB_OFFLINE": "1",
                "PREFIX_CACHE": "0",
                **variant.environment,
            }
            env |= {"STREAMING_DOORS": "function-url", "GATEWAY_TIMEOUT": str(LONGEST_S)}
            functions[variant.name] = stack.enter_context(LocalFunction(env))
            for door in DOORS:
                _call(functions[variant.name], door, options.prompt, max(options.output), -1)
        kinds = [(name, door, length) for name in functions for door in DOORS for length in options.output]
        task = progress.add_task("streams", total=options.calls * len(kinds))
        for i, (name, door, length) in interleaved(kinds, options.calls):
            times = _call(functions[name], door, options.prompt, length, i)
            sample = {"variant": name, "round": i, "door": door, **times}
            recorder.data["samples"].append(sample)
            recorder.save(complete=False)
            progress.advance(task)
    recorder.save(complete=True)
    return recorder.path


def _call(function: LocalFunction, door: str, prompt: int, length: int, seed: int) -> dict[str, float]:
    """One answer's tokens and those of its prompt, and the seconds to its first and its last byte.

    Raises InputError when the function does not answer.
    """
    draw = random.Random(seed)
    body = {
        "prompt": [draw.choice(PLAIN_IDS) for _ in range(prompt)],
        "max_tokens": length,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    event = DOORS[door]("POST", "/v1/completions", {}, json.dumps(body).encode())
    started = time.monotonic()
    answer = function.start(event, LONGEST_S).wait(LONGEST_S)
    if not answer.complete or answer.error is not None or b"[DONE]" not in answer.body:
        raise InputError(f"The function does not answer: {answers.reason(answer)}")
    first = answer.chunks[2 if answer.streamed else 0]  # of a stream, after its head and the NULs
    events = [json.loads(line[6:]) for line in answers.body(answer).splitlines() if line.startswith("data: {")]
    usage = next(event["usage"] for event in reversed(events) if event.get("usage"))
    return {
        "prompt_tokens": usage["prompt_tokens"],
        "output_tokens": usage["completion_tokens"],
        "first_byte_s": first.at - started,
        "last_byte_s": answer.chunks[-1].at - started,
    }
