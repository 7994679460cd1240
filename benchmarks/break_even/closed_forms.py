"""Queueing theory that applies to Lambda's environments: exact where it says exact, an approximation where it
says so.

Rates are per second, times in seconds, loads in erlangs (rate x mean service time). Poisson arrivals
throughout.
"""

import math

from benchmarks.break_even.timeouts import IdleTimeout


def erlang_b(servers: int, load: float) -> float:
    """Chance that an arrival finds all `servers` busy and is turned away (M/G/c/c, exact for any service
    time).

    The recursion of B(c) = a B(c-1) / (c + a B(c-1)), stable for any size.
    """
    blocking = 1.0
    for c in range(1, servers + 1):
        blocking = load * blocking / (c + load * blocking)
    return blocking


def erlang_c(servers: int, load: float) -> float:
    """Chance that an arrival has to wait for one of `servers` (M/M/c, exact for exponential service)."""
    if load >= servers:
        return 1.0
    blocking = erlang_b(servers, load)
    return servers * blocking / (servers - load * (1 - blocking))


def wait_exceeds(seconds: float, servers: int, rate: float, service: float) -> float:
    """Chance that the wait for one of `servers` exceeds `seconds` (M/M/c first come first served, exact)."""
    load = rate * service
    if load >= servers:
        return 1.0
    return erlang_c(servers, load) * math.exp(-(servers - load) * seconds / service)


def mean_wait_single(rate: float, service: float, cv: float) -> float:
    """Mean wait for one server (Pollaczek-Khinchine, exact for any service time); `cv` is its variation."""
    load = rate * service
    return math.inf if load >= 1 else load * service * (1 + cv * cv) / (2 * (1 - load))


def cold_fraction_one(rate: float, timeout: IdleTimeout) -> float:
    """Share of requests that start cold on a function limited to one environment (exact for any service
    time).

    After each request the gap to the next accepted one is exponential, so the environment survives with
    1 - E[exp(-rate x timeout)]: exp(-rate x timeout) when the timeout is constant.
    """
    return timeout.laplace(rate)


def throttled_fraction_one(rate: float, service: float, cold: float, timeout: IdleTimeout) -> float:
    """Share of requests turned away by a concurrency limit of one (M/G/1/1, exact); `cold` is the start's
    seconds.
    """
    load = rate * (service + cold_fraction_one(rate, timeout) * cold)
    return load / (1 + load)


def cold_fraction(rate: float, service: float, timeout: IdleTimeout, kept: int = 0) -> float:
    """Share of cold requests with as many environments as it takes, newest first (approximation, Poisson
    arrivals).

    Environment n serves rate x (B(n-1) - B(n)) requests per second, B being Erlang's blocking; its idle gaps
    are taken as exponential. Exact as the load goes to zero; the overflow that deeper environments see is
    burstier in truth. The first `kept` environments never time out.
    """
    load = rate * service
    total, before, n = 0.0, 1.0, 0
    while before > 1e-9 and n < 100_000:
        n += 1
        after = load * before / (n + load * before)
        share = before - after
        if n > kept:
            while_idle = rate * share / max(1 - load * share, 1e-12)
            total += share * timeout.laplace(while_idle)
        before = after
    return min(total + before, 1.0)


def cold_fraction_pinged(rate: float, seconds: float, every: float) -> float:
    """Share of requests that start cold with a ping `every` so many seconds and a constant idle timeout of
    `seconds`.

    Exact for instantaneous service: cold means neither a request nor a ping in the last `seconds`.
    """
    return math.exp(-rate * seconds) * max(0.0, 1 - seconds / every)


def gap_exceeds_bursty(seconds: float, rate: float, burst_factor: float, burst_s: float) -> float:
    """Chance of a gap longer than `seconds` between on-off Poisson arrivals (Kuczura 1973, exact).

    Bursts of exponential length (mean `burst_s`) at `burst_factor` x `rate`, silences between them such that
    the mean rate is `rate`. The gaps are hyperexponential with two phases.
    """
    peak = rate * burst_factor
    leave_burst = 1 / burst_s
    leave_silence = leave_burst / (burst_factor - 1)
    total = peak + leave_burst + leave_silence
    root = math.sqrt(total * total - 4 * peak * leave_silence)
    fast, slow = (total + root) / 2, (total - root) / 2
    weight = (peak - slow) / (fast - slow)
    return weight * math.exp(-fast * seconds) + (1 - weight) * math.exp(-slow * seconds)


def provisioned_needed(load: float, spill: float) -> int:
    """Fewest provisioned environments that leave at most `spill` of Poisson requests to on-demand ones."""
    blocking, n = 1.0, 0
    while blocking > spill:
        n += 1
        blocking = load * blocking / (n + load * blocking)
    return max(n, 1)


def containers_needed(rate: float, service: float, patience: float, late: float) -> int:
    """Fewest always-on containers, one request each at a time, with at most `late` waiting beyond `patience`
    seconds.
    """
    n = max(1, math.floor(rate * service) + 1)
    while wait_exceeds(patience, n, rate, service) > late:
        n += 1
    return n


def compute_saved(rate: float, service: float, load: float, cold: float, timeout: IdleTimeout) -> float:
    """Share of the billed compute that loading once saves over loading on every request, at `rate`.

    Loading takes `load` seconds, a cold start `cold` of which it is a part. Every request but the cold ones
    saves it.
    """
    starts = cold_fraction(rate, service, timeout)
    return (1 - starts) * load / (service + load + starts * (cold - load))
