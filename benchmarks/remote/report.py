"""Remote invocations in a table, from a results file's content and nothing else."""

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from benchmarks.stats import noise_note, summarise
from benchmarks.tables import dollars, seconds, table


def is_cold(sample: dict[str, Any]) -> bool:
    """Whether Lambda says that the invocation started an environment."""
    return "init_ms" in sample or "restore_ms" in sample


def usd_per_thousand(sample: dict[str, Any], prices: dict[str, float]) -> float:
    """Dollars for a thousand invocations like this one, at what Lambda billed it."""
    billed_s = float(sample["billed_ms"] + sample.get("billed_restore_ms", 0.0)) / 1000
    return 1000 * (prices["request"] + billed_s * float(sample["memory_mb"]) / 1024 * prices["gb_second"])


def _kinds(content: dict[str, Any]) -> dict[tuple[float, str], list[dict[str, Any]]]:
    kinds: dict[tuple[float, str], list[dict[str, Any]]] = {}
    for sample in content["samples"]:
        kind = "cold" if is_cold(sample) else "warm"
        kinds.setdefault((sample.get("memory_mb", 0), kind), []).append(sample)
    return dict(sorted(kinds.items()))


def _median(samples: list[dict[str, Any]], name: str) -> float | None:
    values = [sample[name] for sample in samples if name in sample]
    return summarise(values).median if values else None


def _figures(content: dict[str, Any]) -> str:
    head = ["invocation", "calls", "client, median", "client, p95", "init", "restore", "duration", "billed"]
    head += ["memory used", "per 1,000 requests"]
    rows = []
    for (memory, kind), samples in _kinds(content).items():
        client = summarise([sample["client_s"] for sample in samples])
        cells = [str(client.n), seconds(client.median), seconds(client.p95)]
        for name in ("init_ms", "restore_ms", "duration_ms", "billed_ms"):
            value = _median(samples, name)
            cells.append("-" if value is None else seconds(value / 1000))
        used = _median(samples, "used_mb")
        cells.append("-" if used is None else f"{used:,.0f} MB")
        billed = [usd_per_thousand(s, content["settings"]["prices"]) for s in samples if "billed_ms" in s]
        cells.append(dollars(summarise(billed).median) if billed else "-")
        rows.append([f"{kind}, {memory:,.0f} MB", *cells])
    return table(head, rows)


def sections(content: dict[str, Any]) -> dict[str, str]:
    """Named pieces of Markdown."""
    spreads = {
        f"{kind}, {memory:,.0f} MB": summarise([sample["client_s"] for sample in samples]).spread
        for (memory, kind), samples in _kinds(content).items()
    }
    notes = [f"- {note}" for note in content["notes"]]
    asked = [sample for sample in content["samples"] if sample["asked"] == "cold" and not is_cold(sample)]
    if asked:
        notes.append(f"- {len(asked)} invocations were to be cold and Lambda reports no start for them.")
    return {
        "figures": f"{_figures(content)}\n{noise_note(spreads, content['machine'])}",
        "notes": "\n".join(notes) + "\n" if notes else "",
    }


FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {}
