"""The ways of serving the function, each simulated at one request rate: what it costs a month, how long
requests take.

The bill is AWS's: durations rounded up to the millisecond, INIT billed like any other time (since August
2025).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.break_even.closed_forms import containers_needed, provisioned_needed
from benchmarks.break_even.function import MB_PER_VCPU, Function, Traffic
from benchmarks.break_even.prices import Prices
from benchmarks.break_even.simulation import (
    Environments,
    Outcome,
    simulate_containers,
    simulate_environments,
    simulate_pinged,
)
from benchmarks.break_even.timeouts import Floats
from benchmarks.errors import InputError
from tools import cost_snapstart

MONTH_S = 730 * 3600
"""A month, as AWS's calculator counts it."""
SPILL = 0.01
"""Share of requests provisioned concurrency may leave to on-demand environments, and of those a container
makes wait.
"""
REFUSED = 0.0005
"""Share of requests that Managed Instances may refuse because all their processes are busy: half of what the sweep
takes from any choice, so that chance in a simulation does not decide.
"""
MANAGED_AT_LEAST = 3
"""Instances that Lambda starts for a function, one per zone, and does not go below [AWS documentation, "Scaling Lambda
Managed Instances"]; a smaller minimum can be set by hand, later.
"""
INSTANCE_VCPUS = (2, 4, 8, 16, 32, 48, 64)
"""Sizes of instances, from `.large` on, that C7i and C7g have both; a vCPU costs the same in each."""
INSTANCE_KEEPS = 1
"""vCPUs of an instance that Lambda keeps for itself."""


@dataclass(frozen=True)
class Scene:
    """One request rate, one draw of arrivals and service times, shared by all choices so that they differ in
    nothing else.
    """

    rate: float
    """Requests per second, the mean."""
    arrivals: Floats
    service: Floats
    settle: int
    """Requests at the start that are simulated and not counted."""
    function: Function
    traffic: Traffic
    prices: Prices
    ping_every_s: float
    ping_s: float
    rng: np.random.Generator

    @property
    def requests(self) -> float:
        """Requests a month."""
        return self.rate * MONTH_S

    @property
    def peak(self) -> float:
        """Requests per second within a burst, for which what is kept ready is sized; the mean rate without
        bursts.
        """
        return self.rate * self.traffic.burst_factor


@dataclass(frozen=True)
class Result:
    """What one choice does at one rate. Shares are of all requests; latency is of those that were served."""

    usd_month: float
    p50_s: float
    p99_s: float
    cold: float
    throttled: float
    units: int
    """Provisioned environments, containers or instances kept; 0 where nothing is."""


def fargate_size(memory_mb: int) -> tuple[float, int]:
    """The smallest Fargate task (vCPU, GB) with at least the vCPUs and memory Lambda gives `memory_mb`.

    Sizes: AWS documentation, "Fargate task sizes" (Linux).
    """
    for vcpu, most_gb, step in ((0.25, 2, 1), (0.5, 4, 1), (1, 8, 1), (2, 16, 1), (4, 30, 1), (8, 60, 4)):
        gb = max(math.ceil(memory_mb / 1024), math.ceil(2 * vcpu))
        gb = math.ceil(gb / step) * step
        if vcpu * MB_PER_VCPU >= memory_mb - 1 and gb <= most_gb:
            return vcpu, gb
    raise InputError(f"no Fargate task is as large as a function of {memory_mb} MB.")


def instances_needed(memory_mb: int, requests: int) -> tuple[int, int]:
    """Managed Instances (how many, vCPUs each) that cost least and answer `requests` at once.

    A request has as many vCPUs as Lambda gives a function of `memory_mb`.
    """
    vcpus = memory_mb / MB_PER_VCPU
    found = []
    for size in INSTANCE_VCPUS:
        at_once = (size - INSTANCE_KEEPS) // vcpus
        if at_once:
            found.append((max(MANAGED_AT_LEAST, math.ceil(requests / at_once)), size))
    return min(found, key=math.prod)


def managed_usd_month(prices: Prices, instances: int, vcpus: int) -> float:
    """Dollars a month that instances cost whatever they do: EC2's price and Lambda's share of it."""
    ec2 = instances * vcpus * prices["instance_vcpu_hour"] * MONTH_S / 3600
    return ec2 * (1 + prices["managed_fee_per_dollar"])


def snapstart_usd_month(function: Function, prices: Prices, restores: float) -> float:
    """Dollars a month for the snapshot of one version and so many restores of it."""
    return cost_snapstart.snapstart(
        function.gb,
        versions=1,
        cached_s=MONTH_S,
        init_s=function.cold_s,
        restores=restores,
        restore_s=function.restore_s,
        usd_run=prices["gb_second"],
        usd_cached=prices["snapstart_cache_gb_second"],
        usd_restored=prices["snapstart_restore_gb"],
    )


def billed(seconds: Floats) -> Floats:
    """What Lambda bills for durations: rounded up to the millisecond."""
    return np.ceil(seconds * 1000 - 1e-9) / 1000


def _result(usd_month: float, outcome: Outcome, units: int = 0) -> Result:
    served = outcome.latency[~outcome.throttled]
    p50, p99 = np.percentile(served, [50, 99]) if len(served) else (math.nan, math.nan)
    return Result(usd_month, float(p50), float(p99), float(outcome.cold.mean()), float(outcome.throttled.mean()), units)


def _run(scene: Scene, service: Floats, cold: float, provisioned: int = 0) -> tuple[Outcome, Floats]:
    environments = Environments(cold, scene.traffic.timeout, scene.traffic.limit, provisioned)
    outcome = simulate_environments(scene.arrivals, service, environments, scene.rng)
    return outcome.after(scene.settle), service[scene.settle :]


def _run_bill(scene: Scene, outcome: Outcome, service: Floats, cold: float, usd_gb_s: float) -> float:
    """Dollars per request, mean over all of them: the request fee and what the time in environments costs."""
    served = ~outcome.throttled
    seconds = billed(service) * served + outcome.cold * billed(np.array(cold))
    return float(served.mean() * scene.prices["request"] + seconds.mean() * scene.function.gb * usd_gb_s)


def load_per_request(scene: Scene) -> Result:
    """The handler builds the model for every request: the pattern this project replaces."""
    function = scene.function
    cold = function.cold_s - function.load_s
    outcome, service = _run(scene, scene.service + function.load_s, cold)
    return _result(scene.requests * _run_bill(scene, outcome, service, cold, scene.prices["gb_second"]), outcome)


def on_demand(scene: Scene) -> Result:
    """The model is loaded once per environment; environments come and go with the load."""
    cold = scene.function.cold_s
    outcome, service = _run(scene, scene.service, cold)
    return _result(scene.requests * _run_bill(scene, outcome, service, cold, scene.prices["gb_second"]), outcome)


def warm_up(scene: Scene) -> Result:
    """On demand, with a scheduled ping that keeps one environment from timing out."""
    function, prices = scene.function, scene.prices
    environments = Environments(function.cold_s, scene.traffic.timeout, scene.traffic.limit)
    outcome, cold_pings = simulate_pinged(
        scene.arrivals, scene.service, environments, scene.ping_every_s, scene.ping_s, scene.rng
    )
    outcome = outcome.after(scene.settle)
    per_request = _run_bill(scene, outcome, scene.service[scene.settle :], function.cold_s, prices["gb_second"])
    seconds = float(billed(np.array(scene.ping_s))) + cold_pings * function.cold_s
    ping = prices["request"] + prices["schedule_invocation"] + seconds * function.gb * prices["gb_second"]
    return _result(scene.requests * per_request + MONTH_S / scene.ping_every_s * ping, outcome)


def snapstart(scene: Scene) -> Result:
    """A published version whose environments are restored from a snapshot taken after loading.

    One version cached all month. How much of a restore's time is billed is not known, so all of it is: the most it
    can be.
    """
    outcome, service = _run(scene, scene.service, scene.function.restore_s)
    per_request = _run_bill(scene, outcome, service, 0.0, scene.prices["gb_second"])
    restores = scene.requests * float(outcome.cold.mean())
    return _result(scene.requests * per_request + snapstart_usd_month(scene.function, scene.prices, restores), outcome)


def provisioned(scene: Scene) -> Result:
    """Provisioned concurrency: the fewest environments that leave 1 % of Poisson requests to others."""
    function, prices = scene.function, scene.prices
    units = min(provisioned_needed(scene.peak * function.warm_s, SPILL), scene.traffic.limit)
    outcome, service = _run(scene, scene.service, function.cold_s, units)
    inside = outcome.provisioned
    spilt = Outcome(outcome.latency, outcome.cold, inside, outcome.throttled | inside)
    per_request = _run_bill(scene, spilt, service, function.cold_s, prices["gb_second"])
    per_request += float(inside.mean()) * prices["request"]
    per_request += float((billed(service) * inside).mean()) * function.gb * prices["provisioned_run_gb_second"]
    kept = units * MONTH_S * function.gb * prices["provisioned_gb_second"]
    return _result(scene.requests * per_request + kept, outcome, units)


def container(scene: Scene) -> Result:
    """Always-on Fargate tasks behind a load balancer, one request at a time each, the rest queueing.

    The fewest tasks with at most 1 % of Poisson requests waiting longer than one request takes on average.
    """
    function, prices = scene.function, scene.prices
    units = containers_needed(scene.peak, function.warm_s, function.warm_s, SPILL)
    latency = simulate_containers(scene.arrivals, scene.service, units)[scene.settle :]
    never = np.zeros(len(latency), np.bool_)
    vcpu, gb = fargate_size(function.memory_mb)
    task = vcpu * prices["container_vcpu_hour"] + gb * prices["container_gb_hour"]
    usd_month = (units * task + prices["load_balancer_hour"]) * MONTH_S / 3600
    return _result(usd_month, Outcome(latency, never, never, never), units)


def managed(scene: Scene) -> Result:
    """Managed Instances, the cheapest with the fewest processes that refuse at most 0.05 % of Poisson requests.

    Processes are loaded before a request comes. A request that finds all of them busy is refused.
    """
    function, prices = scene.function, scene.prices
    processes = provisioned_needed(scene.peak * function.warm_s, REFUSED)
    always_there = Environments(0.0, scene.traffic.timeout, limit=processes, provisioned=processes)
    outcome = simulate_environments(scene.arrivals, scene.service, always_there, scene.rng).after(scene.settle)
    instances, vcpus = instances_needed(function.memory_mb, processes)
    requests = scene.requests * float((~outcome.throttled).mean()) * prices["request"]
    return _result(managed_usd_month(prices, instances, vcpus) + requests, outcome, instances)


@dataclass(frozen=True)
class Choice:
    """A way of serving: its name in words, how to simulate it, the prices it needs."""

    name: str
    simulate: Callable[[Scene], Result]
    needs: tuple[str, ...]


_ON_DEMAND = ("request", "gb_second")
CHOICES = {
    "load_per_request": Choice("load per request", load_per_request, _ON_DEMAND),
    "on_demand": Choice("on demand", on_demand, _ON_DEMAND),
    "warm_up": Choice("warm-up pings", warm_up, (*_ON_DEMAND, "schedule_invocation")),
    "snapstart": Choice("SnapStart", snapstart, (*_ON_DEMAND, "snapstart_cache_gb_second", "snapstart_restore_gb")),
    "provisioned": Choice(
        "provisioned", provisioned, (*_ON_DEMAND, "provisioned_gb_second", "provisioned_run_gb_second")
    ),
    "container": Choice("container", container, ("container_vcpu_hour", "container_gb_hour", "load_balancer_hour")),
    "managed": Choice("managed", managed, ("request", "instance_vcpu_hour", "managed_fee_per_dollar")),
}
