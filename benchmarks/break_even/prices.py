"""What AWS charges: the dated table beside this file, by region and architecture, with overrides from the
caller.

A price without a source is absent, never guessed: a choice that needs it is left out by name.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import InputError

TABLE = Path(__file__).with_name("prices.json")


@dataclass(frozen=True)
class Prices:
    """US dollars per unit, for one region and architecture; `sources` says where and when each was read."""

    region: str
    architecture: str
    usd: Mapping[str, float]
    sources: Mapping[str, str]

    def __getitem__(self, name: str) -> float:
        """The price `name` in US dollars."""
        return self.usd[name]

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of `names` for which no price is known."""
        return [name for name in names if name not in self.usd]


def _read_override(text: str, known: Iterable[str]) -> tuple[str, float]:
    name, separator, value = text.partition("=")
    if not separator or name not in known:
        raise InputError(f"--price {text!r} is not NAME=DOLLARS with NAME one of {', '.join(sorted(known))}.")
    try:
        usd = float(value)
    except ValueError:
        raise InputError(f"--price {text!r}: {value!r} is not a number of dollars.") from None
    if not (math.isfinite(usd) and usd >= 0):
        raise InputError(f"--price {text!r}: a price is a finite number of dollars, zero or more.")
    return name, usd


def load_prices(region: str, architecture: str, overrides: Iterable[str] = ()) -> Prices:
    """The table's prices for a region and architecture, with `NAME=DOLLARS` overrides put over them."""
    table: dict[str, Any] = json.loads(TABLE.read_text())
    regions = table["regions"]
    if region not in regions:
        raise InputError(f"no prices for region {region!r}; the table has {', '.join(regions)}.")
    if architecture not in regions[region]:
        raise InputError(f"no {architecture!r} prices for {region}; the table has {', '.join(regions[region])}.")
    row: dict[str, Any] = regions[region][architecture]
    usd = {name: float(price["usd"]) for name, price in row.items() if price is not None}
    sources = {name: table["sources"][price["source"]] for name, price in row.items() if price is not None}
    for text in overrides:
        name, value = _read_override(text, row)
        usd[name] = value
        sources[name] = "given on the command line"
    return Prices(region, architecture, usd, sources)
