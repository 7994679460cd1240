"""`python -m benchmarks load`: arrival rates against workers, and the memory that each worker adds."""

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from benchmarks.break_even.arrivals import check_seed, poisson
from benchmarks.errors import InputError
from benchmarks.load.client import send
from benchmarks.load.server import Server, ServerFailedError
from benchmarks.results import Recorder
from benchmarks.variants import Variant, add_variant_arguments, described, parse_variants

WHAT = (
    "The FastAPI server under Poisson arrivals that do not wait for earlier answers: latency from the moment a request "
    "was due to its whole answer, and the memory of the server with its workers, shared pages counted once."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's parameters."""
    add_variant_arguments(parser)
    add = parser.add_argument
    add("--workers", type=int, nargs="+", default=[1, 2, 3, 4], help="worker processes to try, default 1 to 4")
    add("--rate", type=float, nargs="+", default=[0.5, 1, 2, 4], help="requests per second to try")
    add("--seconds", type=float, default=30, help="how long requests arrive at each rate, default 30")
    add("--tokens", type=int, default=16, help="tokens each request asks for, default 16")
    add("--seed", type=int, default=0, help="of the arrivals, default 0")
    add("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results file")
    add("--name", default="load", help="name of the results file, default load")


def run(options: argparse.Namespace) -> Path:
    """Measure, saving after every rate; returns the results file's path."""
    if min(options.workers) < 1 or options.tokens < 1:
        raise InputError("--workers and --tokens take numbers of at least one.")
    if not all(number > 0 for number in (*options.rate, options.seconds)):
        raise InputError("--rate and --seconds take numbers above zero.")
    if max(options.rate) * options.seconds > 20_000:
        raise InputError(f"{max(options.rate) * options.seconds:,.0f} requests at one rate are more than 20,000.")
    for name in ("workers", "rate"):
        values = getattr(options, name)
        if len(set(values)) < len(values):
            raise InputError(f"--{name} names one twice: {' '.join(f'{value:g}' for value in values)}.")
    check_seed(options.seed)
    if importlib.util.find_spec("fastapi") is None:
        raise InputError("load measures the FastAPI server, which is not installed; pip install -r requirements.txt")
    variants = parse_variants(options.model)
    settings = {
        "models": described(variants),
        "seconds": options.seconds,
        "tokens": options.tokens,
        "seed": options.seed,
    }
    recorder = Recorder(options.out / f"{options.name}.json", "load", WHAT, settings)
    recorder.data = {"samples": [], "memory": [], "failed": {}}
    with Progress() as progress:
        total = len(variants) * len(options.workers) * sum(options.rate) * options.seconds
        task = progress.add_task("requests", total=total)
        for variant in variants:
            for workers in options.workers:
                try:
                    _serve(variant, workers, options, recorder, lambda: progress.advance(task))
                except ServerFailedError as error:
                    recorder.data["failed"][f"{variant.name}, {workers} workers"] = str(error)
    recorder.save(complete=True)
    return recorder.path


def _serve(variant: Variant, workers: int, options: argparse.Namespace, recorder: Recorder, done: Any) -> None:
    """One server under each rate in turn."""
    event = {"prompt": "Once upon a time", "max_tokens": options.tokens, "temperature": 0, "ignore_eos": True}
    about = {"variant": variant.name, "workers": workers}
    with Server(variant, workers) as server:
        send(server.port, [0.0] * workers * 2, event, lambda: None)  # each worker's first request is not counted
        for rate in options.rate:
            rng = np.random.default_rng([options.seed, round(rate * 1000)])
            arrivals = poisson(rng, rate, max(2, round(rate * options.seconds))).tolist()
            for sample in send(server.port, arrivals, event, done):
                recorder.data["samples"].append({**about, "rate": rate, "span_s": arrivals[-1], **sample})
            recorder.save(complete=False)
        recorder.data["memory"].append({**about, "proportional_bytes": server.proportional_memory()})
        recorder.save(complete=False)
