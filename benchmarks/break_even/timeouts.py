"""How long Lambda keeps an idle execution environment, as a distribution.

AWS documents none. Measured by others: uniform between 5 and 7 minutes (mikhail.io, "When does cold start
happen on AWS Lambda?", 2021), exactly 10 minutes (the same author, August 2019), 45 to 60 minutes
(theburningmonk.com, 2017).
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.errors import InputError

Floats = npt.NDArray[np.float64]


class IdleTimeout(Protocol):
    """A distribution of seconds."""

    def sample(self, rng: np.random.Generator, n: int) -> Floats:
        """`[n]` independent timeouts, seconds."""
        ...

    def laplace(self, rate: float) -> float:
        """E[exp(-rate x timeout)]: the chance that a Poisson stream of `rate` lets it expire."""
        ...


@dataclass(frozen=True)
class Constant:
    """Every environment is kept exactly `seconds`; infinity keeps them for ever."""

    seconds: float

    def sample(self, rng: np.random.Generator, n: int) -> Floats:
        """See `IdleTimeout`."""
        return np.full(n, self.seconds)

    def laplace(self, rate: float) -> float:
        """See `IdleTimeout`."""
        return math.exp(-rate * self.seconds)


@dataclass(frozen=True)
class Uniform:
    """Kept between `low` and `high` seconds."""

    low: float
    high: float

    def sample(self, rng: np.random.Generator, n: int) -> Floats:
        """See `IdleTimeout`."""
        return rng.uniform(self.low, self.high, n)

    def laplace(self, rate: float) -> float:
        """See `IdleTimeout`."""
        width = rate * (self.high - self.low)
        if width < 1e-12:
            return math.exp(-rate * self.low)
        return math.exp(-rate * self.low) * -math.expm1(-width) / width


@dataclass(frozen=True)
class Exponential:
    """Reclaimed at any moment with the same chance: `mean` seconds on average."""

    mean: float

    def sample(self, rng: np.random.Generator, n: int) -> Floats:
        """See `IdleTimeout`."""
        return rng.exponential(self.mean, n)

    def laplace(self, rate: float) -> float:
        """See `IdleTimeout`."""
        return 1 / (1 + rate * self.mean)


def parse_timeout(text: str) -> IdleTimeout:
    """`constant:SECONDS`, `uniform:LOW:HIGH` or `exponential:MEAN`, in seconds."""
    kind, *numbers = text.split(":")
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        values = []
    if any(not math.isfinite(value) or value <= 0 for value in values):
        values = []
    match kind, values:
        case "constant", [seconds]:
            return Constant(seconds)
        case "uniform", [low, high] if low < high:
            return Uniform(low, high)
        case "exponential", [mean]:
            return Exponential(mean)
    raise InputError(
        f"--idle-timeout {text!r} is none of constant:SECONDS, uniform:LOW:HIGH (LOW < HIGH) and "
        "exponential:MEAN, all in seconds and above zero."
    )
