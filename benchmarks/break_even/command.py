"""`python -m benchmarks break-even`: parameters in, simulation, results file out."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.break_even.arrivals import check_seed
from benchmarks.break_even.choices import CHOICES, fargate_size
from benchmarks.break_even.closed_forms import compute_saved
from benchmarks.break_even.expected import later_than, usd_month
from benchmarks.break_even.function import Function, Traffic
from benchmarks.break_even.measured import measured_cold, measured_typical, measured_warm
from benchmarks.break_even.prices import load_prices
from benchmarks.break_even.sweep import (
    DAY_S,
    Sweep,
    changes,
    cheaper_for_good,
    cheapest,
    costs,
    rates_between,
    simplest_of_cheapest,
)
from benchmarks.break_even.timeouts import IdleTimeout, parse_timeout
from benchmarks.errors import InputError
from benchmarks.results import Recorder, load_result

WHAT = (
    "Simulated AWS bill and request latency of seven ways to serve one function, against the request rate. "
    "Times are those given (settings), prices those of the dated table; "
    "free tier, data transfer and logs are left out."
)
COMMITTED = Path(__file__).parents[1] / "results"
"""Where a run without any times takes them from: `compiled int8` in cold-start.json and warm.json."""
Z99 = 2.3263478740408408


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's parameters."""
    add = parser.add_argument
    add("--cold-start", type=Path, metavar="FILE", help="take cold start and loading from a results file of cold-start")
    add("--warm", type=Path, metavar="FILE", help="take the warm request from a results file of warm, or of prefix")
    add("--variant", help="whose figures to take from those files; default the first one's")
    add("--cold-s", type=float, help="cold start: from nothing to ready, seconds; by hand")
    add("--load-s", type=float, help="the part of it that loads model and tokenizer, seconds; by hand")
    add("--warm-s", type=float, help="mean time of a request on a loaded model, seconds; by hand")
    add(
        "--warm-cv",
        type=float,
        default=0.5,
        help="its standard deviation over its mean (lognormal), default 0.5",
    )
    add("--restore-s", type=float, default=0.5, help="SnapStart restore, seconds; an assumption, default 0.5")
    add("--memory-mb", type=int, default=3538, help="the function's memory, default 3538 (two vCPUs, as measured)")
    add("--region", default="us-east-1", help="prices of this region, default us-east-1")
    add("--architecture", default="x86_64", help="x86_64 (default) or arm64")
    add("--price", action="append", default=[], metavar="NAME=DOLLARS", help="override a price; repeatable")
    add(
        "--idle-timeout",
        default="uniform:300:420",
        help="constant:S, uniform:LOW:HIGH or exponential:MEAN; default uniform:300:420",
    )
    add("--concurrency", type=int, default=1000, help="concurrency limit, default 1000")
    add(
        "--burst-factor",
        type=float,
        default=1.0,
        help="rate within bursts over the mean rate, default 1: no bursts",
    )
    add("--burst-s", type=float, default=60.0, help="mean length of a burst, default 60 seconds")
    add("--ping-every-s", type=float, default=240.0, help="a warm-up ping every so many seconds, default 240")
    add("--ping-s", type=float, default=0.005, help="how long a ping runs, default 0.005 seconds")
    add(
        "--per-day",
        type=float,
        nargs=2,
        default=(10.0, 10e6),
        metavar=("LOW", "HIGH"),
        help="request rates, per day",
    )
    add("--p99-s", type=float, help="limit on the 99th percentile; default 1.5 times that of a warm request")
    add("--quick", action="store_true", help="fewer rates and requests: rougher lines in a few seconds")
    add("--seed", type=int, default=0, help="of the random draws, default 0")
    add("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results file")


def _warm_p99(function: Function) -> float:
    sigma2 = math.log1p(function.warm_cv**2)
    return function.warm_s * math.exp(Z99 * math.sqrt(sigma2) - sigma2 / 2)


def _times(options: argparse.Namespace) -> dict[str, float]:
    """Cold start, loading and warm request: given by hand, else from results files; by default from COMMITTED."""
    times: dict[str, float] = {}
    cold_start, warm, variant = options.cold_start, options.warm, options.variant
    if all(getattr(options, name) is None for name in ("cold_start", "warm", "cold_s", "load_s", "warm_s")):
        cold_start, warm, variant = COMMITTED / "cold-start.json", COMMITTED / "warm.json", variant or "compiled int8"
    if cold_start:
        times |= measured_cold(load_result(cold_start, "cold-start"), variant)
    if warm:
        content = load_result(warm)
        if content["benchmark"] == "prefix":
            times |= measured_typical(content, variant)
        else:
            times |= measured_warm(load_result(warm, "warm"), variant)
    for name in ("cold_s", "load_s", "warm_s", "warm_cv"):
        if getattr(options, name) is not None:
            times[name] = getattr(options, name)
    times.setdefault("warm_cv", 0.5)
    missing = [name for name in ("cold_s", "load_s", "warm_s") if name not in times]
    if missing:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        raise InputError(f"{flags}: give seconds by hand, or results files with --cold-start and --warm.")
    return times


def _read(options: argparse.Namespace) -> tuple[Sweep, float]:
    """The parameters, checked, and the limit on the 99th percentile."""
    check_seed(options.seed)
    times = _times(options)
    function = Function(options.memory_mb, restore_s=options.restore_s, **times)
    fargate_size(function.memory_mb)
    timeout = parse_timeout(options.idle_timeout)
    traffic = Traffic(timeout, options.concurrency, options.burst_factor, options.burst_s)
    prices = load_prices(options.region, options.architecture, options.price)
    low, high = options.per_day
    if not 0 < low < high:
        raise InputError(f"--per-day {low:g} {high:g}: two rising rates above zero are needed.")
    rates = rates_between(low, high, 4 if options.quick else 12)
    least = 10_000 if options.quick else 100_000
    sweep = Sweep(function, traffic, prices, rates, options.ping_every_s, options.ping_s, options.seed, least)
    free = [CHOICES[name].name for name in sweep.names if not _usd_month(sweep, name, function, low / DAY_S)]
    if free:
        raise InputError(f"--price: {', '.join(free)} would cost nothing, and nothing can be compared with that.")
    limit = options.p99_s if options.p99_s is not None else 1.5 * _warm_p99(function)
    if not (math.isfinite(limit) and limit > 0):
        raise InputError(f"--p99-s {limit}: seconds above zero are needed.")
    return sweep, limit


def _letters(row: Sequence[str | None]) -> str:
    """A row of a plane of choices: each choice's first letter, a dot where there is none."""
    return "".join(name[0] if name else "." for name in row)


def _by_cold_start(sweep: Sweep, limit: float, steps: int) -> dict[str, Any]:
    """The cheapest choice over the plane of request rate and cold start, by closed form."""
    rates = rates_between(sweep.per_day[0], sweep.per_day[-1], steps)
    given = sweep.function
    colds = rates_between(0.05, 10.0, steps)
    best = []
    for cold_s in colds:
        share = cold_s / given.cold_s if given.cold_s else 1.0
        function = Function(given.memory_mb, cold_s, given.load_s * share, given.restore_s, given.warm_s, given.warm_cv)
        row = [_cheapest_expected(sweep, function, per_day / DAY_S, sweep.traffic.timeout, limit) for per_day in rates]
        best.append(_letters(row))
    return {"per_day": rates, "cold_s": colds, "best": best}


def _cheapest_expected(sweep: Sweep, function: Function, rate: float, timeout: IdleTimeout, limit: float) -> str | None:
    fit = [name for name in sweep.names if later_than(name, function, rate, timeout, limit) <= 0.01]
    return simplest_of_cheapest({name: _usd_month(sweep, name, function, rate) for name in fit})


def _usd_month(sweep: Sweep, name: str, function: Function, rate: float) -> float:
    timeout, prices = sweep.traffic.timeout, sweep.prices
    return usd_month(name, function, rate, timeout, prices, sweep.ping_every_s, sweep.ping_s)


def _by_latency(sweep: Sweep, results: dict[str, Any], steps: int) -> dict[str, Any]:
    """The cheapest choice over the plane of request rate and limit on the 99th percentile, from the
    simulation.
    """
    p99 = [result.p99_s for rows in results.values() for result in rows]
    low, high = min(p99) * 0.9, max(p99) * 1.15
    limits = [low * (high / low) ** (i / (8 * steps)) for i in range(8 * steps + 1)]
    best = [_letters([cheapest(results, i, limit) for i in range(len(sweep.per_day))]) for limit in limits]
    return {"p99_s": limits, "best": best}


def run(options: argparse.Namespace) -> Path:
    """Simulate, and write the results file; returns its path."""
    sweep, limit = _read(options)
    settings = {
        **asdict(sweep.function),
        "region": sweep.prices.region,
        "architecture": sweep.prices.architecture,
        "idle_timeout": options.idle_timeout,
        "concurrency": sweep.traffic.limit,
        "burst_factor": sweep.traffic.burst_factor,
        "burst_s": sweep.traffic.burst_s,
        "ping_every_s": sweep.ping_every_s,
        "ping_s": sweep.ping_s,
        "p99_s": limit,
        "seed": sweep.seed,
        "requests_per_rate_at_least": sweep.least,
    }
    recorder = Recorder(options.out / "break-even.json", "break-even", WHAT, settings)
    per_day: Sequence[float] = sweep.per_day
    with Progress() as progress:
        task = progress.add_task("simulating", total=len(per_day) * len(sweep.names))
        results = sweep.run(lambda: progress.advance(task))
    on_demand = costs(results["on_demand"])
    cheaper_from = {
        name: cheaper_for_good(per_day, on_demand, costs(results[name]))
        for name in ("container", "managed")
        if name in results
    }
    timeout, function = sweep.traffic.timeout, sweep.function
    recorder.data = {
        "prices": {name: {"usd": usd, "source": sweep.prices.sources[name]} for name, usd in sweep.prices.usd.items()},
        "left_out": sweep.left_out,
        "per_day": list(per_day),
        "results": {name: [asdict(result) for result in rows] for name, rows in results.items()},
        "compute_saved": [
            compute_saved(rate / DAY_S, function.warm_s, function.load_s, function.cold_s, timeout) for rate in per_day
        ],
        "cheaper_from": cheaper_from,
        "changes": {
            "any latency": [asdict(change) for change in changes(per_day, results, math.inf)],
            f"99th percentile within {limit:.3g} s": [asdict(change) for change in changes(per_day, results, limit)],
        },
        "by_latency": _by_latency(sweep, results, 6 if options.quick else 20),
        "by_cold_start": _by_cold_start(sweep, limit, 8 if options.quick else 25),
    }
    recorder.save(complete=True)
    return recorder.path
