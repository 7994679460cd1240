"""Where a cold start's time goes that no phase tells: each package's imports, and each file that is opened."""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.tables import table

SHOWN = 15
"""Rows of a table."""


def import_times(output: Iterable[str]) -> dict[str, float]:
    """Milliseconds that importing each package took by itself, from what `python -X importtime` wrote.

    The handler's own include the model's load and count for nothing here.
    """
    own: Counter[str] = Counter()
    for line in output:
        if found := re.match(r"import time: +(\d+) \| +\d+ \| +(\S+)$", line):
            own[found[2].partition(".")[0]] += int(found[1])
    return {package: us / 1000 for package, us in own.most_common() if package != "handler"}


def file_sizes(opened: Iterable[str], model: Path) -> dict[str, int]:
    """Bytes of each file that was `opened`, largest first; 0 where it is no longer there.

    A model's files, the project's and Python's are named from their directories on.
    """
    inside = {model.absolute(): "the model's ", Path.cwd(): "", Path(sys.base_prefix): "Python's "}
    sizes = {}
    for name in opened:
        path = Path(name)
        within = next((folder for folder in inside if path.is_relative_to(folder)), None)
        told = name if within is None else f"{inside[within]}{path.relative_to(within)}"
        sizes[told] = path.stat().st_size if path.is_file() else 0
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def beside_weights(sizes: Mapping[str, int]) -> int:
    """Bytes of all files but the weights: what a start has to fetch where nothing is there yet."""
    return sum(size for name, size in sizes.items() if not name.endswith(("weights.bin", ".safetensors")))


def remains(content: dict[str, Any]) -> str:
    """The largest of both, in tables."""
    parts = []
    for name, found in content["remains"].items():
        imports, files = found["imports_ms"], found["files"]
        if imports:
            head = [f"{name}: imports by package", "ms, traced"]
            rows = [[f"`{package}`", f"{ms:.1f}"] for package, ms in list(imports.items())[:SHOWN]]
            parts.append(table(head, [*rows, [f"all {len(imports)}", f"**{sum(imports.values()):.1f}**"]]))
        head = [f"{name}: files", "MB"]
        rows = [[f"`{file}`", f"{size / 1e6:.2f}"] for file, size in list(files.items())[:SHOWN]]
        rows.append([f"all {len(files)}, weights aside", f"**{beside_weights(files) / 1e6:.1f}**"])
        parts.append(table(head, rows))
    return "\n".join(parts)
