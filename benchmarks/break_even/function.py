"""What the caller says or measured about the function: its times, its size, its requests. Checked before
anything runs.
"""

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.break_even.arrivals import bursty, poisson
from benchmarks.break_even.timeouts import Floats, IdleTimeout
from benchmarks.errors import InputError

MB_PER_VCPU = 1769
"""Lambda gives one vCPU per 1,769 MB [AWS documentation, "Configure Lambda function memory"]."""


@dataclass(frozen=True)
class Function:
    """A function that serves a model. Seconds unless named otherwise."""

    memory_mb: int
    cold_s: float
    """From nothing to ready with the model loaded: what an on-demand cold start adds to its request."""
    load_s: float
    """The part of `cold_s` that loads the model and the tokenizer: what loading on every request adds to
    each.
    """
    restore_s: float
    """What a SnapStart restore adds to its request instead of `cold_s`; all of it is billed."""
    warm_s: float
    """Mean time of a request on a loaded model."""
    warm_cv: float
    """Standard deviation of that time over its mean; the distribution is lognormal."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name in ("cold_s", "load_s", "restore_s", "warm_s", "warm_cv"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"--{name.replace('_', '-')} {value}: a finite number, zero or more, is needed.")
        if not 128 <= self.memory_mb <= 10_240:
            raise InputError(f"--memory-mb {self.memory_mb}: Lambda gives 128 to 10240 MB.")
        if self.warm_s == 0:
            raise InputError("--warm-s 0: a request takes some time.")
        if self.load_s > self.cold_s:
            raise InputError(f"--load-s {self.load_s} is more than --cold-s {self.cold_s}, of which it is a part.")

    @property
    def gb(self) -> float:
        """Memory in the GB that AWS bills (1,024 MB)."""
        return self.memory_mb / 1024

    def sample_service(self, rng: np.random.Generator, n: int) -> Floats:
        """`[n]` request times on a loaded model."""
        sigma2 = math.log1p(self.warm_cv**2)
        return self.warm_s * rng.lognormal(-sigma2 / 2, math.sqrt(sigma2), n)


@dataclass(frozen=True)
class Traffic:
    """How requests come, and how Lambda treats environments between them. Seconds."""

    timeout: IdleTimeout
    limit: int
    burst_factor: float
    """Rate within a burst over the mean rate; 1 is a plain Poisson stream."""
    burst_s: float
    """Mean length of a burst."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.limit < 1:
            raise InputError(f"--concurrency {self.limit}: at least one request must be allowed in flight.")
        if not (math.isfinite(self.burst_factor) and self.burst_factor >= 1):
            raise InputError(f"--burst-factor {self.burst_factor}: 1 (no bursts) or more is needed.")
        if not (math.isfinite(self.burst_s) and self.burst_s > 0):
            raise InputError(f"--burst-s {self.burst_s}: a burst lasts longer than zero seconds.")

    def sample_arrivals(self, rng: np.random.Generator, rate: float, n: int) -> Floats:
        """`[n]` arrival times at a mean `rate` per second."""
        if self.burst_factor == 1:
            return poisson(rng, rate, n)
        return bursty(rng, rate, n, self.burst_factor, self.burst_s)
