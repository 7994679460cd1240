"""`python -m benchmarks distributed-map`: parameters in, simulation, results file out."""

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.break_even.arrivals import check_seed
from benchmarks.break_even.function import Function
from benchmarks.break_even.measured import measured_cold, measured_warm
from benchmarks.break_even.prices import load_prices
from benchmarks.distributed_map.simulation import NEEDS, simulate
from benchmarks.errors import InputError
from benchmarks.results import Recorder, load_result

WHAT = (
    "Simulated time and AWS bill of a file of requests through a Step Functions Distributed Map. Cold start and "
    "request are the committed measurements, prices those of the dated table; the lines of an invocation are taken one "
    "after the other, which is the most that they can take; storage, data transfer and logs are left out."
)
COMMITTED = Path(__file__).parents[1] / "results"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's parameters."""
    add = parser.add_argument
    add("--lines", type=int, default=100_000, help="requests in the file, default 100000")
    add("--items", type=int, nargs="+", default=[1, 16, 64], help="requests of an invocation, default 1 16 64")
    add(
        "--environments", type=int, nargs="+", default=[2, 16, 100, 1000], help="at once at most, default 2 16 100 1000"
    )
    add("--variant", default="compiled int8", help="whose measurements to take, default compiled int8")
    add("--cold-start", type=Path, default=COMMITTED / "cold-start.json", metavar="FILE", help="results of cold-start")
    add("--warm", type=Path, default=COMMITTED / "warm.json", metavar="FILE", help="results of warm")
    add("--memory-mb", type=int, default=3538, help="the function's memory, default 3538 (two vCPUs, as measured)")
    add("--region", default="us-east-1", help="prices of this region, default us-east-1")
    add("--architecture", default="x86_64", help="x86_64 (default) or arm64")
    add("--price", action="append", default=[], metavar="NAME=DOLLARS", help="override a price; repeatable")
    add("--seed", type=int, default=0, help="of the random draws, default 0")
    add("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results file")


def run(options: argparse.Namespace) -> Path:
    """Simulate, and write the results file; returns its path."""
    for name in ("lines", "items", "environments"):
        value = getattr(options, name)
        if min(value if isinstance(value, list) else [value]) < 1:
            raise InputError(f"--{name}: whole numbers of at least 1 are needed.")
    check_seed(options.seed)
    times = measured_cold(load_result(options.cold_start, "cold-start"), options.variant)
    times |= measured_warm(load_result(options.warm, "warm"), options.variant)
    function = Function(options.memory_mb, restore_s=0.0, **times)
    prices = load_prices(options.region, options.architecture, options.price)
    if missing := prices.missing(NEEDS):
        raise InputError(f"no price known for {', '.join(missing)} in {options.region}; give --price NAME=DOLLARS.")
    settings = {
        **asdict(function),
        "variant": options.variant,
        "lines": options.lines,
        "region": prices.region,
        "architecture": prices.architecture,
        "seed": options.seed,
    }
    recorder = Recorder(options.out / "distributed-map.json", "distributed-map", WHAT, settings)
    recorder.data = {
        "prices": {name: {"usd": prices[name], "source": prices.sources[name]} for name in NEEDS},
        "alone_s": options.lines * function.warm_s,
        "runs": [
            {"items": items, "most": most, **asdict(simulate(function, prices, options.lines, items, most, rng))}
            for items in options.items
            for most in options.environments
            for rng in [np.random.default_rng(options.seed)]
        ],
    }
    recorder.save(complete=True)
    return recorder.path
