"""What Prometheus reads at /metrics. The names are those of the response's `timings` and `usage`, in seconds.

Several worker processes answer for all of them where PROMETHEUS_MULTIPROC_DIR names an empty directory, as
prometheus-client documents it; without it each process tells of itself.
"""

import os
import time
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from api.model import Model
from api.response_types import Timings, Usage
from engines.base import PAGE_TOKENS
from generation.scheduler import Scheduler

PREFIX = "causal_lm_"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
"""Upper bounds of the histograms' buckets."""


DRAFTED = ("accepted_prediction_tokens", "rejected_prediction_tokens")
SEQUENCES = (1, 2, 4, 8, 16, 32, 64, 128)
LOOK_SECONDS = 1.0
"""How often a busy engine is asked for its pages, which can take longer than a fast network's token."""


class Metrics:
    """One process's figures."""

    def __init__(self, model: Model) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            f"{PREFIX}requests", "HTTP responses by route and status", ["route", "status"], registry=registry
        )
        self.disconnects = Counter(f"{PREFIX}disconnects", "Clients gone before their answer", registry=registry)
        self._tokens = {
            name: Counter(f"{PREFIX}{name}", f"{name.replace('_', ' ').capitalize()}", registry=registry)
            for name in ("prompt_tokens", "cached_tokens", "completion_tokens", *DRAFTED)
        }
        self._spans = {
            name: Histogram(
                f"{PREFIX}{name}_seconds", f"Seconds of a request: {name}", registry=registry, buckets=SECONDS
            )
            for name in ("queue", "prefill", "decode", "total", "time_to_first_token")
        }
        self.admitted = Gauge(
            f"{PREFIX}admitted", "Requests that wait or run", registry=registry, multiprocess_mode="livesum"
        )
        self._sequences = Histogram(
            f"{PREFIX}pass_sequences", "Sequences in a forward pass", registry=registry, buckets=SEQUENCES
        )
        self._pass_seconds = Histogram(
            f"{PREFIX}pass_seconds", "Seconds of a forward pass", registry=registry, buckets=SECONDS
        )
        self._rows = {
            name: Counter(f"{PREFIX}{name}_tokens", f"Tokens {name} by forward passes", registry=registry)
            for name in ("read", "made")
        }
        self._cache_tokens = {
            name: Gauge(
                f"{PREFIX}cache_tokens_{name}",
                f"Tokens that the pages of the KV cache {what}",
                registry=registry,
                multiprocess_mode="livesum",
            )
            for name, what in (
                ("used", "in use could hold"),
                ("kept", "hold of earlier requests, some of them in use"),
                ("total", "could hold, all of them"),
            )
        }
        self._cache_looked_at = 0.0
        load = Gauge(
            f"{PREFIX}load_seconds",
            "Phases of the load, one after the other, and their total",
            ["phase"],
            registry=registry,
            multiprocess_mode="max",
        )
        for phase, milliseconds in model.load_ms.items():
            load.labels(phase.removesuffix("_ms")).set(milliseconds / 1000)
        loads = Counter(f"{PREFIX}loads", "Times a process loaded the model", registry=registry)
        loads.inc()

    def record_response(self, route: str, status: int) -> None:
        """One HTTP response."""
        self._requests.labels(route, str(status)).inc()

    def record_generation(self, usage: Usage, timings: Timings) -> None:
        """One generation's usage and timings."""
        self._tokens["prompt_tokens"].inc(usage["prompt_tokens"])
        self._tokens["cached_tokens"].inc(timings["cached_tokens"])
        self._tokens["completion_tokens"].inc(usage["completion_tokens"])
        details = usage["completion_tokens_details"]
        self._tokens["accepted_prediction_tokens"].inc(details["accepted_prediction_tokens"])
        self._tokens["rejected_prediction_tokens"].inc(details["rejected_prediction_tokens"])
        self._spans["queue"].observe(timings["queue_ms"] / 1000)
        self._spans["prefill"].observe(timings["prefill_ms"] / 1000)
        self._spans["decode"].observe(timings["decode_ms"] / 1000)
        self._spans["total"].observe(timings["total_ms"] / 1000)
        if timings["time_to_first_token_ms"] is not None:
            self._spans["time_to_first_token"].observe(timings["time_to_first_token_ms"] / 1000)

    def record_pass(self, scheduler: Scheduler) -> None:
        """The scheduler's latest forward pass. Called by the thread that made it."""
        latest = scheduler.latest
        if latest is not None:
            self._sequences.observe(latest.sequences)
            self._pass_seconds.observe(latest.seconds)
            self._rows["read"].inc(latest.prompt_rows)
            self._rows["made"].inc(latest.made)
        if not scheduler.busy or time.monotonic() > self._cache_looked_at + LOOK_SECONDS:
            self.record_cache(scheduler)

    def record_cache(self, scheduler: Scheduler) -> None:
        """How full the KV cache is. Called by the thread that makes the passes."""
        engine = scheduler.engine
        self._cache_looked_at = time.monotonic()
        unused = engine.free_tokens + scheduler.prefixes.evictable * PAGE_TOKENS
        self._cache_tokens["used"].set(engine.total_tokens - unused)
        self._cache_tokens["kept"].set(scheduler.prefixes.pages * PAGE_TOKENS)
        self._cache_tokens["total"].set(engine.total_tokens)

    def exposition(self) -> bytes:
        """The figures in Prometheus' text format, of all worker processes where they share a directory."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        for ended in _ended(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])):
            mark_process_dead(ended)  # type: ignore[no-untyped-call]
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]
        return generate_latest(everyone)


def _ended(directory: Path) -> set[int]:
    """Process ids of workers that are gone and still have figures of what is under way: those that were killed."""
    pids = {int(file.stem.rpartition("_")[2]) for file in directory.glob("gauge_live*_*.db")}
    return {pid for pid in pids if not _lives(pid)}


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
