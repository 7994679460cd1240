"""Cost and lateness of each choice by closed form, for Poisson traffic without a concurrency limit: no
simulation.

It answers in microseconds what the simulation answers in a second, so it can cover a plane; tests hold the
two together.
"""

import math

from benchmarks.break_even.choices import (
    MONTH_S,
    REFUSED,
    SPILL,
    fargate_size,
    instances_needed,
    managed_usd_month,
    snapstart_usd_month,
)
from benchmarks.break_even.closed_forms import cold_fraction, containers_needed, erlang_b, provisioned_needed
from benchmarks.break_even.function import Function
from benchmarks.break_even.prices import Prices
from benchmarks.break_even.timeouts import IdleTimeout

_ROUND_UP_S = 0.0005
"""What billing by the started millisecond adds to a duration, on average."""


def service_exceeds(function: Function, seconds: float) -> float:
    """Chance that a request on a loaded model takes longer than `seconds` (lognormal tail)."""
    if seconds <= 0:
        return 1.0
    sigma = math.sqrt(math.log1p(function.warm_cv**2))
    if sigma == 0:
        return float(seconds < function.warm_s)
    return math.erfc((math.log(seconds / function.warm_s) + sigma * sigma / 2) / (sigma * math.sqrt(2))) / 2


def cold_share(name: str, function: Function, rate: float, timeout: IdleTimeout) -> float:
    """Share of requests that start cold under the choice `name`; pings are taken to keep one environment for
    ever.
    """
    match name:
        case "load_per_request":
            return cold_fraction(rate, function.warm_s + function.load_s, timeout)
        case "warm_up":
            return cold_fraction(rate, function.warm_s, timeout, kept=1)
        case "provisioned":
            kept = provisioned_needed(rate * function.warm_s, SPILL)
            return cold_fraction(rate, function.warm_s, timeout, kept)
        case "container" | "managed":
            return 0.0
    return cold_fraction(rate, function.warm_s, timeout)


def later_than(name: str, function: Function, rate: float, timeout: IdleTimeout, seconds: float) -> float:
    """Share of requests that take longer than `seconds` under the choice `name` (queueing of containers left
    out).
    """
    extra = function.load_s if name == "load_per_request" else 0.0
    start = function.restore_s if name == "snapstart" else function.cold_s - extra
    cold = cold_share(name, function, rate, timeout)
    warm_late = service_exceeds(function, seconds - extra)
    return cold * service_exceeds(function, seconds - extra - start) + (1 - cold) * warm_late


def usd_month(
    name: str,
    function: Function,
    rate: float,
    timeout: IdleTimeout,
    prices: Prices,
    ping_every_s: float,
    ping_s: float,
) -> float:
    """Expected dollars a month under the choice `name` at `rate` requests per second."""
    if name == "container":
        units = containers_needed(rate, function.warm_s, function.warm_s, SPILL)
        vcpu, gb = fargate_size(function.memory_mb)
        task = vcpu * prices["container_vcpu_hour"] + gb * prices["container_gb_hour"]
        return (units * task + prices["load_balancer_hour"]) * MONTH_S / 3600
    requests = rate * MONTH_S
    if name == "managed":
        processes = provisioned_needed(rate * function.warm_s, REFUSED)
        served = 1 - erlang_b(processes, rate * function.warm_s)
        instances, vcpus = instances_needed(function.memory_mb, processes)
        return managed_usd_month(prices, instances, vcpus) + requests * served * prices["request"]
    cold = cold_share(name, function, rate, timeout)
    gb_s, seconds, fixed = prices["gb_second"], function.warm_s + _ROUND_UP_S, 0.0
    per_cold = function.cold_s * function.gb * gb_s
    match name:
        case "load_per_request":
            seconds += function.load_s
            per_cold = (function.cold_s - function.load_s) * function.gb * gb_s
        case "warm_up":
            ping = prices["request"] + prices["schedule_invocation"] + ping_s * function.gb * gb_s
            fixed = MONTH_S / ping_every_s * ping
        case "snapstart":
            per_cold = 0.0
            fixed = snapstart_usd_month(function, prices, requests * cold)
        case "provisioned":
            units = provisioned_needed(rate * function.warm_s, SPILL)
            spilt = erlang_b(units, rate * function.warm_s)
            fixed = units * MONTH_S * function.gb * prices["provisioned_gb_second"]
            gb_s = spilt * gb_s + (1 - spilt) * prices["provisioned_run_gb_second"]
    return fixed + requests * (prices["request"] + seconds * function.gb * gb_s + cold * per_cold)
