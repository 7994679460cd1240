"""The simulation agrees with queueing theory wherever theory is exact, and behaves where it is not."""

import math

import numpy as np
import pytest

from benchmarks.break_even.arrivals import bursty, poisson
from benchmarks.break_even.closed_forms import (
    cold_fraction,
    cold_fraction_one,
    cold_fraction_pinged,
    erlang_b,
    erlang_c,
    gap_exceeds_bursty,
    mean_wait_single,
    throttled_fraction_one,
)
from benchmarks.break_even.simulation import (
    Environments,
    simulate_containers,
    simulate_environments,
    simulate_pinged,
)
from benchmarks.break_even.timeouts import Constant, Exponential, IdleTimeout, Uniform

N = 150_000
FOR_EVER = Constant(math.inf)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize("timeout", [Constant(300), Uniform(200, 420), Exponential(300)])
@pytest.mark.parametrize("rate", [0.0005, 0.004])
def test_one_environment_starts_cold_as_often_as_the_exact_formula_says(
    rng: np.random.Generator, timeout: IdleTimeout, rate: float
) -> None:
    arrivals, service = poisson(rng, rate, N), rng.gamma(2, 15, N)
    outcome = simulate_environments(arrivals, service, Environments(20, timeout, limit=1), rng)
    accepted = ~outcome.throttled
    assert outcome.cold[accepted].mean() == pytest.approx(cold_fraction_one(rate, timeout), rel=0.03)
    assert outcome.throttled.mean() == pytest.approx(throttled_fraction_one(rate, 30, 20, timeout), rel=0.05)


@pytest.mark.parametrize("servers", [3, 20])
@pytest.mark.parametrize("shape", [0.5, 4.0])
def test_a_full_concurrency_limit_throttles_as_erlang_b_says_whatever_the_service_time(
    rng: np.random.Generator, servers: int, shape: float
) -> None:
    load = 0.8 * servers
    service = rng.gamma(shape, 1 / shape, N)
    outcome = simulate_environments(poisson(rng, load, N), service, Environments(0, FOR_EVER, servers), rng)
    assert outcome.throttled.mean() == pytest.approx(erlang_b(servers, load), rel=0.06)


def test_without_a_limit_the_requests_in_flight_are_poisson(rng: np.random.Generator) -> None:
    load = 4.0
    arrivals, service = poisson(rng, load, N), rng.lognormal(-0.5, 1.0, N)
    simulate_environments(arrivals, service, Environments(0, FOR_EVER, 10**9), rng)
    ends = np.sort(arrivals + service)
    in_flight = (np.arange(N) - np.searchsorted(ends, arrivals))[1000:]
    assert in_flight.mean() == pytest.approx(load, rel=0.02)
    assert in_flight.var() == pytest.approx(load, rel=0.05)


def test_environments_kept_for_ever_start_cold_once_for_each_that_was_ever_needed_at_once(
    rng: np.random.Generator,
) -> None:
    arrivals, service = poisson(rng, 5.0, 20_000), rng.exponential(1.0, 20_000)
    outcome = simulate_environments(arrivals, service, Environments(0, FOR_EVER, 10**9), rng)
    most = max(np.arange(20_000) + 1 - np.searchsorted(np.sort(arrivals + service), arrivals, side="right"))
    assert outcome.cold.sum() == most


@pytest.mark.parametrize("rate", [0.001, 0.02, 0.5])
def test_many_environments_start_cold_about_as_often_as_the_approximation_says(
    rng: np.random.Generator, rate: float
) -> None:
    timeout = Uniform(300, 420)
    outcome = simulate_environments(
        poisson(rng, rate, 4 * N), rng.exponential(1.0, 4 * N), Environments(1.0, timeout, 1000), rng
    )
    assert outcome.after(N).cold.mean() == pytest.approx(cold_fraction(rate, 1.0, timeout), rel=0.1)


def test_pings_leave_cold_what_their_formula_says(rng: np.random.Generator) -> None:
    arrivals = poisson(rng, 0.002, N)
    environments = Environments(0.0, Constant(300), 10)
    sparse, _ = simulate_pinged(arrivals, np.full(N, 1e-6), environments, 500, 1e-6, rng)
    assert sparse.cold.mean() == pytest.approx(cold_fraction_pinged(0.002, 300, 500), rel=0.03)
    dense, cold_pings = simulate_pinged(arrivals, np.full(N, 1e-6), environments, 240, 1e-6, rng)
    assert dense.cold.sum() <= 1
    assert cold_pings < 1e-4


def test_bursts_have_the_gaps_their_formula_says_and_the_mean_rate_asked_for(
    rng: np.random.Generator,
) -> None:
    arrivals = bursty(rng, 0.05, 400_000, burst_factor=6, burst_s=90)
    assert len(arrivals) / arrivals[-1] == pytest.approx(0.05, rel=0.03)
    for seconds in (1, 10, 300, 900):
        share = (np.diff(arrivals) > seconds).mean()
        assert share == pytest.approx(gap_exceeds_bursty(seconds, 0.05, 6, 90), rel=0.05)
    quick = simulate_environments(arrivals, np.full(400_000, 1e-6), Environments(0, Constant(300), 9), rng)
    assert quick.cold.mean() == pytest.approx(gap_exceeds_bursty(300, 0.05, 6, 90), rel=0.05)


def test_provisioned_environments_never_start_cold_and_spill_as_erlang_b_says(
    rng: np.random.Generator,
) -> None:
    arrivals, service = poisson(rng, 3.0, N), rng.exponential(1.0, N)
    outcome = simulate_environments(arrivals, service, Environments(5.0, Constant(1e-9), 10**6, 4), rng)
    assert not (outcome.cold & outcome.provisioned).any()
    assert 1 - outcome.provisioned.mean() == pytest.approx(erlang_b(4, 3.0), rel=0.04)


def test_containers_make_requests_wait_as_erlang_c_and_pollaczek_khinchine_say(
    rng: np.random.Generator,
) -> None:
    arrivals, service = poisson(rng, 3.0, 4 * N), rng.exponential(1.0, 4 * N)
    wait = simulate_containers(arrivals, service, 4) - service
    assert (wait > 1e-9).mean() == pytest.approx(erlang_c(4, 3.0), rel=0.04)
    fixed = np.full(4 * N, 0.2)
    assert (simulate_containers(arrivals, fixed, 1) - fixed).mean() == pytest.approx(
        mean_wait_single(3.0, 0.2, cv=0), rel=0.04
    )


def test_the_newest_idle_environment_is_taken_so_that_the_oldest_times_out() -> None:
    # Two at once make two environments; single requests every 8 s then keep the newer one only.
    arrivals = np.array([0.0, 0.5, *np.arange(8.0, 48.0, 8.0), 48.0, 48.5])
    outcome = simulate_environments(
        arrivals, np.ones(len(arrivals)), Environments(0, Constant(20), 10), np.random.default_rng(0)
    )
    assert list(np.flatnonzero(outcome.cold)) == [0, 1, len(arrivals) - 1]


def test_a_cold_request_is_as_much_later_as_the_start_takes() -> None:
    outcome = simulate_environments(
        np.array([0.0, 100.0]),
        np.array([2.0, 2.0]),
        Environments(3, Constant(50), 1),
        np.random.default_rng(0),
    )
    assert outcome.latency.tolist() == [5.0, 5.0]
