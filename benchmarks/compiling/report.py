"""Compilations as a table, from a results file's content and nothing else."""

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from benchmarks.tables import table


def _compilations(content: dict[str, Any]) -> str:
    rows = [
        [
            f"{each['model']} to {each['quantize']}",
            f"{each['parameters'] / 1e6:,.0f} M",
            f"{each['seconds']:,.0f} s",
            f"{each['cpu_seconds']:,.0f} s",
            f"{each['peak_bytes'] / 1e9:.1f} GB",
            f"{each['artifact_bytes'] / 1e6:,.0f} MB",
        ]
        for each in content["samples"]
    ]
    return table(["checkpoint", "weights", "time", "CPU time", "peak memory", "artifact"], rows)


def sections(content: dict[str, Any]) -> dict[str, str]:
    """Named pieces of Markdown."""
    return {"compilations": _compilations(content)}


FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {}
