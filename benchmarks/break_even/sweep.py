"""All choices over a range of request rates, and where the best of them changes."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.break_even.choices import CHOICES, Result, Scene
from benchmarks.break_even.function import Function, Traffic
from benchmarks.break_even.prices import Prices
from benchmarks.errors import InputError

DAY_S = 86_400
MOST_PINGS = 20_000_000
"""That one rate's simulation can hold in a few gigabytes of memory."""
SIMPLEST_FIRST = ("on_demand", "warm_up", "managed", "container", "snapstart", "provisioned", "load_per_request")


@dataclass(frozen=True)
class Sweep:
    """What to simulate."""

    function: Function
    traffic: Traffic
    prices: Prices
    per_day: Sequence[float]
    """Mean request rates, requests per day, rising."""
    ping_every_s: float
    ping_s: float
    seed: int
    least: int
    """Fewest requests simulated at a rate."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name, value in (("--ping-every-s", self.ping_every_s), ("--ping-s", self.ping_s)):
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} {value}: seconds above zero are needed.")
        if self.ping_every_s < 60:
            raise InputError(f"--ping-every-s {self.ping_every_s}: EventBridge schedules once a minute at most.")
        if not self.per_day or min(self.per_day) <= 0 or not all(math.isfinite(rate) for rate in self.per_day):
            raise InputError("request rates are above zero and finite.")
        if max(self.per_day) > 20_000_000:
            raise InputError(f"{max(self.per_day):g} requests a day: the simulation stops at 20 million.")
        rate = min(self.per_day) / DAY_S
        pings = sum(self._length(rate, self._mean_timeout(self._draw()))) / rate / self.ping_every_s
        if pings > MOST_PINGS:
            raise InputError(
                f"{min(self.per_day):g} requests a day: {pings:,.0f} pings would be simulated between them, and "
                f"{MOST_PINGS:,} are the most; --ping-every-s or --quick make them fewer."
            )

    @property
    def names(self) -> list[str]:
        """The choices all of whose prices are known."""
        return [name for name, choice in CHOICES.items() if not self.prices.missing(choice.needs)]

    @property
    def left_out(self) -> dict[str, list[str]]:
        """The other choices, each with the prices that are missing."""
        missing = {name: self.prices.missing(choice.needs) for name, choice in CHOICES.items()}
        return {name: prices for name, prices in missing.items() if prices}

    def scene(self, per_day: float) -> Scene:
        """The draw of arrivals and service times at one rate; the service times are the same at every rate.

        Long enough for the system to settle and be watched over ten idle timeouts, and never fewer than
        `least` requests.
        """
        rng, service_rng = self._draw(), np.random.default_rng([self.seed, 1])
        rate = per_day / DAY_S
        settle, counted = self._length(rate, self._mean_timeout(rng))
        n = settle + counted
        arrivals = self.traffic.sample_arrivals(rng, rate, n)
        service = self.function.sample_service(service_rng, n)
        return Scene(
            rate,
            arrivals,
            service,
            settle,
            self.function,
            self.traffic,
            self.prices,
            self.ping_every_s,
            self.ping_s,
            rng,
        )

    def _draw(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, 0])

    def _mean_timeout(self, rng: np.random.Generator) -> float:
        return float(np.mean(self.traffic.timeout.sample(rng, 1000)))

    def _length(self, rate: float, timeout: float) -> tuple[int, int]:
        """Requests at the start that are not counted, and those that are."""
        settle = math.ceil(rate * timeout * 3) + self.least // 20
        return settle, max(self.least, math.ceil(rate * timeout * 10))

    def run(self, advance: Callable[[], None]) -> dict[str, list[Result]]:
        """Each choice's result at each rate; `advance` is called after every simulation."""
        results: dict[str, list[Result]] = {name: [] for name in self.names}
        for per_day in self.per_day:
            scene = self.scene(per_day)
            for name in self.names:
                results[name].append(CHOICES[name].simulate(scene))
                advance()
        return results


@dataclass(frozen=True)
class Change:
    """At about `per_day` requests a day the best choice changes."""

    per_day: float
    before: str | None
    after: str | None


def cheapest(results: Mapping[str, Sequence[Result]], i: int, p99_s: float, throttled: float = 0.001) -> str | None:
    """The choice that costs least at rate `i` among those within `p99_s` and with hardly a request turned
    away.
    """
    return simplest_of_cheapest(
        {
            name: row[i].usd_month
            for name, row in results.items()
            if row[i].p99_s <= p99_s and row[i].throttled <= throttled
        }
    )


def simplest_of_cheapest(usd: Mapping[str, float]) -> str | None:
    """The cheapest choice; within 1 % of it the simplest, in the order of `SIMPLEST_FIRST`. None if there is
    none.
    """
    if not usd:
        return None
    least = min(usd.values())
    return next(name for name in SIMPLEST_FIRST if name in usd and usd[name] <= least * 1.01)


def crossing(per_day: Sequence[float], one: Sequence[float], other: Sequence[float], i: int) -> float:
    """The rate between rates `i` and `i` + 1 at which two costs meet, on straight lines of logarithms."""
    left = math.log(one[i]) - math.log(other[i])
    right = math.log(one[i + 1]) - math.log(other[i + 1])
    share = 0.5 if left == right else min(max(left / (left - right), 0.0), 1.0)
    return float(per_day[i] ** (1 - share) * per_day[i + 1] ** share)


def changes(per_day: Sequence[float], results: Mapping[str, Sequence[Result]], p99_s: float) -> list[Change]:
    """The rates at which the cheapest choice within `p99_s` changes, rising, from the first rate on."""
    best = [cheapest(results, i, p99_s) for i in range(len(per_day))]
    found = [Change(per_day[0], None, best[0])]
    for i, (before, after) in enumerate(itertools.pairwise(best)):
        if before != after:
            where = math.sqrt(per_day[i] * per_day[i + 1])
            if before is not None and after is not None:
                where = crossing(per_day, costs(results[before]), costs(results[after]), i)
            found.append(Change(where, before, after))
    return found


def cheaper_for_good(per_day: Sequence[float], one: Sequence[float], other: Sequence[float]) -> float | None:
    """The rate from which `other` costs less than `one` at every higher rate simulated; None if it never
    does.
    """
    if other[-1] >= one[-1]:
        return None
    last = max((i for i in range(len(per_day)) if other[i] >= one[i]), default=None)
    return per_day[0] if last is None else crossing(per_day, one, other, last)


def rates_between(low: float, high: float, per_decade: int) -> list[float]:
    """Evenly spaced rates on a logarithmic scale, both ends included."""
    steps = max(1, round(math.log10(high / low) * per_decade))
    return [low * (high / low) ** (i / steps) for i in range(steps + 1)]


def costs(results: Iterable[Result]) -> list[float]:
    """Dollars a month at each rate."""
    return [result.usd_month for result in results]
