"""When requests arrive: Poisson, or Poisson in bursts. Sorted times in seconds from zero."""

import numpy as np

from benchmarks.break_even.timeouts import Floats
from benchmarks.errors import InputError


def check_seed(seed: int) -> None:
    """Refuse a seed that numpy takes none from."""
    if seed < 0:
        raise InputError(f"--seed {seed}: zero or more is needed.")


def poisson(rng: np.random.Generator, rate: float, n: int) -> Floats:
    """`[n]` arrivals of a Poisson stream of `rate` per second."""
    return np.cumsum(rng.exponential(1 / rate, n))


def bursty(rng: np.random.Generator, rate: float, n: int, burst_factor: float, burst_s: float) -> Floats:
    """`[n]` arrivals that come in bursts (mean `burst_s` seconds at `burst_factor` x `rate`) with silence
    between.

    The interrupted Poisson process. Arrivals are drawn in time that runs during bursts only; the silences are
    then put in.
    """
    within = poisson(rng, rate * burst_factor, n)
    bursts = int(within[-1] / burst_s * 1.1) + 50
    ends = np.cumsum(rng.exponential(burst_s, bursts))
    while ends[-1] < within[-1]:
        ends = np.concatenate([ends, ends[-1] + np.cumsum(rng.exponential(burst_s, bursts))])
    silences = np.cumsum(rng.exponential(burst_s * (burst_factor - 1), len(ends)))
    before: Floats = np.concatenate([[0.0], silences])[np.searchsorted(ends, within)]
    return within + before
