"""Discrete-event simulation of Lambda's execution environments, and of always-on containers with a queue.

One environment serves one request at a time. A request takes the newest idle environment that has not timed
out (newest first lets the oldest ones time out, the policy Mahmoudi and Khazaei found in Lambda: "Performance
Modeling of Serverless Computing Platforms", 2020); with none idle it starts one, cold, unless the concurrency
limit is reached, and then it is throttled. Provisioned environments are taken before others and never time
out.

It knows seconds and requests, no prices.
"""

import heapq
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.break_even.timeouts import Floats, IdleTimeout

Bools = npt.NDArray[np.bool_]

_PROVISIONED = 1 << 60
"""Numbers of provisioned environments start here, above every on-demand one, so that newest first takes them
first.
"""


@dataclass(frozen=True)
class Environments:
    """How a function's environments behave. Seconds."""

    cold: float
    """From nothing to ready, added to the request that starts it."""
    timeout: IdleTimeout
    limit: int
    """Concurrency limit: most requests in flight at once."""
    provisioned: int = 0


class Outcome(NamedTuple):
    """What happened to each request, in order of arrival; `[n]` arrays."""

    latency: Floats
    """Seconds from arrival to the end of service; nan where throttled."""
    cold: Bools
    provisioned: Bools
    throttled: Bools

    def after(self, first: int) -> "Outcome":
        """Without the first requests, which saw the system fill up."""
        return self.only(slice(first, None))

    def only(self, which: slice | Bools) -> "Outcome":
        """Of some of the requests."""
        return Outcome(self.latency[which], self.cold[which], self.provisioned[which], self.throttled[which])


def simulate_environments(
    arrivals: Floats, service: Floats, environments: Environments, rng: np.random.Generator
) -> Outcome:
    """Run requests (`arrivals [n]` sorted, `service [n]`) through a function's environments."""
    n = len(arrivals)
    cold = np.zeros(n, np.bool_)
    provisioned = np.zeros(n, np.bool_)
    throttled = np.zeros(n, np.bool_)
    start, limit = environments.cold, environments.limit
    kept = iter(environments.timeout.sample(rng, n).tolist())
    push, pop = heapq.heappush, heapq.heappop
    busy: list[tuple[float, int]] = []
    """In flight: (when it ends, minus the environment's number)."""
    idle = [-(_PROVISIONED + i) for i in range(environments.provisioned)]
    """Minus the numbers of idle environments, so that the heap's top is the newest; timed-out ones leave when
    met.
    """
    heapq.heapify(idle)
    expires = dict.fromkeys(idle, float("inf"))
    created = 0
    for i, (now, seconds) in enumerate(zip(arrivals.tolist(), service.tolist(), strict=True)):
        while busy and busy[0][0] <= now:
            ended, environment = pop(busy)
            push(idle, environment)
            if environment > -_PROVISIONED:
                expires[environment] = ended + next(kept)
        if len(busy) >= limit:
            throttled[i] = True
            continue
        while idle:
            environment = pop(idle)
            if expires[environment] > now:
                provisioned[i] = environment <= -_PROVISIONED
                push(busy, (now + seconds, environment))
                break
            del expires[environment]
        else:
            created += 1
            cold[i] = True
            push(busy, (now + start + seconds, -created))
    latency = np.where(throttled, np.nan, service + start * cold)
    return Outcome(latency, cold, provisioned, throttled)


def simulate_pinged(
    arrivals: Floats,
    service: Floats,
    environments: Environments,
    every: float,
    ping_s: float,
    rng: np.random.Generator,
) -> tuple[Outcome, float]:
    """The same with a scheduled ping `every` so many seconds, each `ping_s` long.

    Returns the requests' outcome and the share of pings that themselves started cold.
    """
    pings = np.arange(rng.uniform(0, every), arrivals[-1], every)
    when = np.concatenate([arrivals, pings])
    order = np.argsort(when, kind="stable")
    length = np.concatenate([service, np.full(len(pings), ping_s)])
    both = simulate_environments(when[order], length[order], environments, rng)
    is_ping = order >= len(arrivals)
    cold_pings = float(both.cold[is_ping].mean()) if len(pings) else 0.0
    return both.only(~is_ping), cold_pings


def simulate_containers(arrivals: Floats, service: Floats, containers: int) -> Floats:
    """Latency `[n]` of requests queueing, first come first served, for always-on containers."""
    free = [0.0] * containers
    latency = np.empty(len(arrivals))
    for i, (now, seconds) in enumerate(zip(arrivals.tolist(), service.tolist(), strict=True)):
        begun = max(now, free[0])
        heapq.heapreplace(free, begun + seconds)
        latency[i] = begun + seconds - now
    return latency
