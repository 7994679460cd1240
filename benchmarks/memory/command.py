"""`python -m benchmarks memory`: processes on one model at once, each having answered a long prompt, and idle."""

import argparse
import contextlib
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.errors import InputError
from benchmarks.peers.contenders import ours
from benchmarks.peers.session import PeerFailedError, Session
from benchmarks.results import Recorder
from benchmarks.variants import Variant, add_variant_arguments, described, parse_variants
from benchmarks.weights import weights_bytes
from engines import artifact
from engines.cpu_levels import choose_level, cpu_flags
from engines.machine import usable_vcpus
from engines.prompts import file_name

WHAT = (
    "Processes on one model, started one after another: each loads the engine and answers one prompt, then idles while "
    "the others do. Peak memory is the kernel's VmHWM, pages mapped from files included; what they share is read from "
    "smaps_rollup once all have answered. A prompt begins with what a model has read when it was compiled."
)
TOKENS = 4
"""Asked for after the prompt."""
UNDERSTOOD = {"DTYPE": re.compile("auto|float32|bfloat16|float16"), "THREADS": re.compile("[0-9]+")}
"""Variables of a variant that reach a worker, and what they can be."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's parameters."""
    add_variant_arguments(parser)
    add = parser.add_argument
    add("--processes", type=int, default=4, help="processes at once on one model, default 4")
    add("--prompt", type=int, default=512, help="prompt length, tokens, default 512")
    add("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results file")
    add("--name", default="memory", help="name of the results file, default memory")


def _check(options: argparse.Namespace) -> list[Variant]:
    """Refuse what cannot be meant; returns the variants asked for."""
    if options.processes < 2:
        raise InputError(f"--processes {options.processes}: at least two are needed, to share anything.")
    if options.prompt < 1:
        raise InputError(f"--prompt {options.prompt}: at least one token is needed.")
    variants = parse_variants(options.model)
    for variant in variants:
        if options.prompt <= len(_baked(variant)):
            raise InputError(
                f"--prompt {options.prompt}: {variant.name} has read {len(_baked(variant))} tokens already."
            )
        for key, value in variant.environment.items():
            if key not in UNDERSTOOD or not UNDERSTOOD[key].fullmatch(value):
                allowed = " and ".join(f"{name}={values.pattern}" for name, values in UNDERSTOOD.items())
                raise InputError(f"--model {variant.name}: {key}={value} is not understood; {allowed} are.")
    return variants


def run(options: argparse.Namespace) -> Path:
    """Measure, saving after every variant; returns the results file's path."""
    variants = _check(options)
    settings: dict[str, Any] = {
        "models": described(variants),
        "weights_bytes": {v.name: weights_bytes(v.directory) for v in variants},
        "processes": options.processes,
        "prompt_tokens": options.prompt,
        "baked": {
            v.name: {"tokens": len(_baked(v)), "file_bytes": _pages_file(v).stat().st_size}
            for v in variants
            if _baked(v)
        },
    }
    recorder = Recorder(options.out / f"{options.name}.json", "memory", WHAT, settings)
    recorder.data = {"samples": [], "failed": {}}
    with Progress() as progress:
        task = progress.add_task("processes", total=options.processes * len(variants))
        for i, variant in enumerate(variants, start=1):
            try:
                recorder.data["samples"] += _measure(variant, options, progress, task)
            except PeerFailedError as error:
                recorder.data["failed"][variant.name] = str(error)
            progress.update(task, completed=options.processes * i)
            recorder.save(complete=False)
    recorder.save(complete=True)
    return recorder.path


def _measure(variant: Variant, options: argparse.Namespace, progress: Progress, task: Any) -> list[dict[str, Any]]:
    """One sample a process. Raises PeerFailedError."""
    command = ours(variant).command(int(variant.environment.get("THREADS", usable_vcpus())), [])
    ids = [*_baked(variant), *(10 + i % 240 for i in range(options.prompt))]  # ordinary tokens in any vocabulary
    with contextlib.ExitStack() as stack:
        sessions = []
        for _ in range(options.processes):
            sessions.append(stack.enter_context(Session(command)))
            sessions[-1].generate(ids[: options.prompt], TOKENS)
            progress.advance(task)
        return [
            {"variant": variant.name, "process": i, "peak_bytes": session.peak_memory, **asdict(session.resident())}
            | ({"baked": asdict(session.resident_of(_pages_file(variant)))} if _baked(variant) else {})
            for i, session in enumerate(sessions)
        ]


def _baked(variant: Variant) -> list[int]:
    """The first prompt that an artifact has read when it was compiled; of any other model nothing."""
    prompts = artifact.read(variant.directory).prompts if variant.engine == "compiled" else []
    return prompts[0] if prompts else []


def _pages_file(variant: Variant) -> Path:
    """The pages of that prompt, of the level that runs here."""
    level = choose_level(artifact.read(variant.directory).prompt_levels, cpu_flags())
    return variant.directory / file_name(level)
