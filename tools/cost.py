"""What a month costs: nothing special, SnapStart, or provisioned concurrency. `python -m tools.cost --requests 100000`.

List prices of us-east-1 without free tier; other regions differ by some per cent. Knows nothing of models: how long a
request and a cold start take is what the logs and alarms say (docs/operations.md).
"""

import argparse
import contextlib
import math
from collections.abc import Callable, Mapping

from tools.cost_snapstart import snapstart

PRICE: Mapping[str, Mapping[str, float]] = {
    "x86_64": {"run": 1.66667e-5, "provisioned run": 9.7222e-6, "provisioned": 4.1667e-6},
    "arm64": {"run": 1.33334e-5, "provisioned run": 7.7778e-6, "provisioned": 3.3334e-6},
}
"""US dollars per GB-second."""
PER_REQUEST = 2e-7
SNAPSHOT_PER_GB_SECOND = 1.5046e-6
SNAPSHOT_PER_RESTORED_GB = 1.397998e-4
MONTH = 30 * 24 * 3600
"""Seconds."""


def monthly(options: argparse.Namespace) -> dict[str, float]:
    """US dollars a month, by how cold starts are met."""
    gb = options.memory / 1024
    price = PRICE[options.architecture]
    requests = options.requests * PER_REQUEST
    busy = options.requests * options.seconds * gb
    cold = options.requests * options.cold_share
    return {
        "neither": requests + (busy + cold * options.init_seconds * gb) * price["run"],
        "SnapStart": requests
        + busy * price["run"]
        + snapstart(
            gb,
            versions=options.versions,
            cached_s=MONTH,
            init_s=options.init_seconds,
            restores=cold,
            restore_s=options.restore_seconds,
            usd_run=price["run"],
            usd_cached=SNAPSHOT_PER_GB_SECOND,
            usd_restored=SNAPSHOT_PER_RESTORED_GB,
        ),
        "provisioned concurrency": requests
        + busy * price["provisioned run"]
        + options.provisioned * gb * MONTH * price["provisioned"],
    }


def between(least: float, most: float, kind: type[int] | type[float]) -> Callable[[str], float]:
    """A reader of the command line's numbers of a `kind`, which refuses those that cannot be, nan among them."""

    def read(text: str) -> float:
        with contextlib.suppress(ValueError):
            if least <= (value := kind(text)) <= most and math.isfinite(value):
                return value
        bounds = f"from {least:g} to {most:g}" if math.isfinite(most) else f"of at least {least:g}"
        raise argparse.ArgumentTypeError(f"{text} is not a {'whole ' if kind is int else ''}number {bounds}")

    return read


def main() -> None:
    """Print the three."""
    count, seconds = between(0, math.inf, int), between(0, math.inf, float)
    parser = argparse.ArgumentParser(description="Monthly cost of the function, in US dollars.")
    parser.add_argument("--requests", type=count, default=100_000, help="a month")
    parser.add_argument("--seconds", type=seconds, default=2.0, help="billed per request")
    parser.add_argument("--memory", type=between(128, 10_240, int), default=3008, help="MB")
    parser.add_argument("--architecture", choices=sorted(PRICE), default="x86_64")
    parser.add_argument(
        "--cold-share", type=between(0, 1, float), default=0.02, help="of the requests that meet a cold start"
    )
    parser.add_argument("--init-seconds", type=seconds, default=4.0, help="of one cold start")
    parser.add_argument("--restore-seconds", type=seconds, default=1.0, help="billed of one restore")
    parser.add_argument("--versions", type=count, default=1, help="published versions whose snapshots are kept")
    parser.add_argument("--provisioned", type=between(1, math.inf, int), default=1, help="environments kept warm")
    options = parser.parse_args()
    needed = math.ceil(options.requests * options.seconds / MONTH)
    for name, dollars in monthly(options).items():
        if name == "provisioned concurrency" and needed > options.provisioned:
            print(f"{name:24} no price: {options.provisioned} kept warm cannot do it, at least {needed} are needed")
        else:
            print(f"{name:24} {dollars:9.2f} $")


if __name__ == "__main__":
    main()
