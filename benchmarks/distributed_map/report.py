"""The simulated batch in words and a table, from a results file's content and nothing else."""

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from benchmarks.tables import dollars, seconds, table

FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {}


def _duration(value: float) -> str:
    """Hours and minutes, minutes, or seconds."""
    if value >= 3600:
        return f"{int(value // 3600)} h {int(value % 3600 // 60)} min"
    return f"{value / 60:.1f} min" if value >= 60 else seconds(value)


def sections(content: dict[str, Any]) -> dict[str, str]:
    """Markdown by name."""
    settings = content["settings"]
    head = [
        "lines of an invocation",
        "environments",
        "it takes",
        "longest invocation",
        "Lambda",
        "Step Functions",
        "both",
    ]
    rows = [
        [
            str(run["items"]),
            f"{run['environments']:,}",
            _duration(run["seconds"]),
            seconds(run["longest_s"]),
            dollars(run["lambda_usd"]),
            dollars(run["states_usd"]),
            dollars(run["lambda_usd"] + run["states_usd"]),
        ]
        for run in content["runs"]
    ]
    facts = (
        f"{settings['lines']:,} lines, {settings['variant']}, {settings['memory_mb']:,} MB {settings['architecture']} "
        f"in {settings['region']}: cold start {seconds(settings['cold_s'])}, a line {seconds(settings['warm_s'])} on "
        f"average (variation {settings['warm_cv']:.2f}). One process that answers them one after the other takes "
        f"{_duration(content['alone_s'])}.\n"
    )
    prices = [[f"`{name}`", f"{price['usd']:g}", price["source"]] for name, price in content["prices"].items()]
    return {"facts": facts, "runs": table(head, rows), "prices": table(["price", "dollars", "source"], prices)}
