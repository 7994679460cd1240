"""The closed forms against values known from elsewhere and against each other."""

import math

import numpy as np
import pytest

from benchmarks.break_even.closed_forms import (
    cold_fraction,
    cold_fraction_one,
    cold_fraction_pinged,
    compute_saved,
    containers_needed,
    erlang_b,
    erlang_c,
    gap_exceeds_bursty,
    mean_wait_single,
    provisioned_needed,
    wait_exceeds,
)
from benchmarks.break_even.timeouts import Constant, Exponential, IdleTimeout, Uniform, parse_timeout
from benchmarks.errors import InputError


def test_erlang_b_is_the_truncated_poisson_tail() -> None:
    load, servers = 3.7, 6
    weights = [load**k / math.factorial(k) for k in range(servers + 1)]
    assert erlang_b(servers, load) == pytest.approx(weights[-1] / sum(weights))


def test_erlang_c_with_one_server_is_the_utilisation() -> None:
    assert erlang_c(1, 0.3) == pytest.approx(0.3)
    assert wait_exceeds(2.0, 1, 0.3, 1.0) == pytest.approx(0.3 * math.exp(-0.7 * 2))
    assert erlang_c(2, 2.5) == wait_exceeds(1.0, 2, 2.5, 1.0) == 1.0


def test_a_constant_service_time_halves_the_wait_of_an_exponential_one() -> None:
    assert mean_wait_single(0.5, 1.0, cv=0) == pytest.approx(mean_wait_single(0.5, 1.0, cv=1) / 2)
    assert mean_wait_single(2.0, 1.0, cv=1) == math.inf


@pytest.mark.parametrize("timeout", [Constant(600), Uniform(300, 420), Exponential(500)])
def test_a_timeout_leaves_a_poisson_stream_as_often_as_its_samples_say(timeout: IdleTimeout) -> None:
    sampled = np.exp(-0.004 * timeout.sample(np.random.default_rng(1), 200_000)).mean()
    assert timeout.laplace(0.004) == pytest.approx(sampled, rel=0.01)
    assert timeout.laplace(0.0) == 1.0


def test_cold_fraction_of_one_environment_is_the_chance_that_nothing_comes_before_the_timeout() -> None:
    assert cold_fraction_one(0.01, Constant(600)) == pytest.approx(math.exp(-6))


def test_cold_fraction_with_any_number_of_environments_meets_the_exact_one_where_load_vanishes() -> None:
    assert cold_fraction(0.002, 1e-6, Constant(600)) == pytest.approx(math.exp(-1.2), rel=1e-4)


def test_an_environment_kept_for_ever_leaves_only_the_overlapping_requests_cold() -> None:
    rate, service = 0.01, 0.5
    assert cold_fraction(rate, service, Constant(60), kept=1) < erlang_b(1, rate * service)
    assert cold_fraction_pinged(rate, 300, every=240) == 0
    assert cold_fraction_pinged(rate, 300, every=600) == pytest.approx(math.exp(-3) / 2)


def test_bursty_gaps_average_to_the_mean_rate() -> None:
    seconds = np.linspace(0, 60_000, 600_001)
    mean = np.trapezoid([gap_exceeds_bursty(float(s), 0.01, 8, 60) for s in seconds[::10]], seconds[::10])
    assert gap_exceeds_bursty(0, 0.01, 8, 60) == pytest.approx(1)
    assert mean == pytest.approx(100, rel=0.02)


def test_what_is_kept_ready_is_the_fewest_that_suffices() -> None:
    n = provisioned_needed(5.0, 0.01)
    assert erlang_b(n, 5.0) <= 0.01 < erlang_b(n - 1, 5.0)
    c = containers_needed(5.0, 1.0, 1.0, 0.01)
    assert wait_exceeds(1.0, c, 5.0, 1.0) <= 0.01 < wait_exceeds(1.0, c - 1, 5.0, 1.0)
    assert provisioned_needed(1e-9, 0.01) == containers_needed(1e-9, 1.0, 1.0, 0.01) == 1


def test_loading_once_saves_the_loading_of_every_warm_request_and_of_no_cold_one() -> None:
    never_cold, always_cold = Constant(math.inf), Constant(1e-9)
    assert compute_saved(1.0, 1.0, 3.0, 5.0, always_cold) == pytest.approx(0, abs=1e-6)
    assert compute_saved(1.0, 1.0, 3.0, 5.0, never_cold) == pytest.approx(0.75, rel=1e-3)


@pytest.mark.parametrize("text", ["forever", "constant:", "constant:-1", "uniform:9:5", "uniform:5", "exponential:nan"])
def test_a_timeout_that_cannot_be_meant_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(InputError, match="constant:SECONDS, uniform:LOW:HIGH"):
        parse_timeout(text)
