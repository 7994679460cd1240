"""`python -m benchmarks warm`: one environment per variant stays up, calls go round them in turn."""

import argparse
import contextlib
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.errors import InputError
from benchmarks.results import Recorder
from benchmarks.variants import Variant, add_variant_arguments, described, interleaved, parse_variants
from tools.emulator import Emulator, EmulatorError

WHAT = (
    "Warm requests under awslambdaric and the runtime interface emulator, one at a time: the model's own times are "
    "those the response reports, the rest of the call is what the handler, the runtime client and the emulator add. "
    "The first call of an environment is never counted."
)
LONGEST_S = 300
PLAIN_IDS = range(10, 250)
"""Token ids that prompts are drawn from: ordinary ones in any vocabulary."""
EVENT_BYTES = (1_000, 10_000, 100_000, 1_000_000, 5_900_000)
"""Sizes of events that ask for no tokens, up to Lambda's 6 MB."""


@dataclass(frozen=True)
class Cell:
    """One kind of request."""

    prompt_tokens: int
    output_tokens: int
    prompts: int = 1
    """Prompts in the one request; they are answered one after another."""

    def event(self, seed: int) -> dict[str, Any]:
        """A direct event that asks for exactly this many tokens, with a prompt of its own."""
        draw = random.Random(seed)
        prompts = [[draw.choice(PLAIN_IDS) for _ in range(self.prompt_tokens)] for _ in range(self.prompts)]
        return {
            "prompt": prompts if self.prompts > 1 else prompts[0],
            "max_tokens": self.output_tokens,
            "temperature": 0,
            "ignore_eos": True,
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's parameters."""
    add_variant_arguments(parser)
    add = parser.add_argument
    add("--calls", type=int, default=100, help="calls of each kind, default 100: enough for a 99th percentile")
    add("--prompt", type=int, nargs="+", default=[16, 128, 512, 1500], help="prompt lengths, tokens")
    add(
        "--output", type=int, nargs="+", default=[8, 32, 128], help="output lengths, tokens; the middle one is the base"
    )
    add("--prompts", type=int, nargs="+", default=[1, 4], help="prompts in one request")
    add("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results file")
    add("--name", default="warm", help="name of the results file, default warm")


def cells(options: argparse.Namespace) -> list[Cell]:
    """The base request, and those that differ from it in one length; refuses what no request can be."""
    if options.calls < 2:
        raise InputError(f"--calls {options.calls}: at least two calls of each kind are needed.")
    for name in ("prompt", "output", "prompts"):
        if min(getattr(options, name)) < 1:
            raise InputError(f"--{name} {min(getattr(options, name))}: at least one is needed.")
    prompt = sorted(options.prompt)[min(1, len(options.prompt) - 1)]
    output = sorted(options.output)[len(options.output) // 2]
    found = [Cell(length, output) for length in options.prompt]
    found += [Cell(prompt, length) for length in options.output]
    found += [Cell(prompt, output, number) for number in options.prompts]
    return list(dict.fromkeys(found))


def run(options: argparse.Namespace) -> Path:
    """Measure, saving after every round; returns the results file's path."""
    kinds, variants = cells(options), parse_variants(options.model)
    settings: dict[str, Any] = {
        "models": described(variants),
        "calls": options.calls,
    }
    recorder = Recorder(options.out / f"{options.name}.json", "warm", WHAT, settings)
    samples: list[dict[str, Any]] = []
    recorder.data = {"samples": samples, "pings": [], "failed": {}}
    failed: dict[str, str] = recorder.data["failed"]
    with contextlib.ExitStack() as stack, Progress() as progress:
        task = progress.add_task("warm requests", total=options.calls * len(kinds) * len(variants))
        ready = {}
        for variant in variants:
            try:
                ready[variant] = _warmed(stack, variant, kinds, settings["models"][variant.name])
            except EmulatorError as error:
                failed[variant.name] = str(error)
        for i, (variant, cell) in interleaved([(v, c) for v in ready for c in kinds], options.calls):
            progress.advance(task)
            if variant.name not in failed:
                _call(ready[variant], variant, cell, i, recorder)
        for i, (variant, size) in interleaved([(v, s) for v in ready for s in EVENT_BYTES], options.calls):
            if variant.name not in failed:
                recorder.data["pings"].append({"variant": variant.name, "round": i, **_ping(ready[variant], size)})
    recorder.save(complete=True)
    return recorder.path


def _warmed(stack: contextlib.ExitStack, variant: Variant, kinds: list[Cell], about: dict[str, str]) -> Emulator:
    """An environment with its model loaded and every kind of request made once. Raises EmulatorError.

    The precision that the engine says it computes in goes into `about`.
    """
    emulator = stack.enter_context(
        Emulator(
            {
                "MODEL_DIR": str(variant.directory),
                "HF_HUB_OFFLINE": "1",
                "PREFIX_CACHE": "0",  # the prompts of a round begin alike
                "AWS_LAMBDA_FUNCTION_TIMEOUT": str(LONGEST_S),
                **variant.environment,
            }
        )
    )
    for cell in kinds:
        reply = emulator.invoke(cell.event(-1), timeout=LONGEST_S)
        for record in reply.log:
            if record.get("message") == "model loaded":
                about["dtype"] = record["dtype"]
        if not (isinstance(reply.payload, dict) and "timings" in reply.payload):
            raise EmulatorError(f"{variant.name} does not answer {asdict(cell)}: {str(reply.payload)[:300]}")
    return emulator


def _call(emulator: Emulator, variant: Variant, cell: Cell, i: int, recorder: Recorder) -> None:
    """One counted request, or the variant among the failed."""
    try:
        reply = emulator.invoke(cell.event(i), timeout=LONGEST_S)
        timings, usage = reply.payload["timings"], reply.payload["usage"]
    except (EmulatorError, KeyError, TypeError) as error:
        recorder.data["failed"][variant.name] = f"{type(error).__name__}: {error}"
        return
    recorder.data["samples"].append(
        {
            "variant": variant.name,
            "round": i,
            "prompt_tokens": usage["prompt_tokens"] // cell.prompts,
            "output_tokens": usage["completion_tokens"] // cell.prompts,
            "prompts": cell.prompts,
            "completion_tokens": usage["completion_tokens"],
            "call_s": reply.seconds,
            **{name.replace("_ms", "_s"): timings[name] / 1000 for name in ("prefill_ms", "decode_ms", "total_ms")},
            "first_token_s": timings["time_to_first_token_ms"] / 1000,
        }
    )
    recorder.save(complete=False)


def _ping(emulator: Emulator, size: int) -> dict[str, float]:
    """A scheduled event of `size` bytes, which no model sees: what everything around it takes."""
    event = {"source": "aws.scheduler", "padding": "x" * (size - 50)}
    return {"event_bytes": size, "call_s": emulator.invoke(event).seconds}
