"""What the kernel says a process holds in memory, shared pages told from its own (proc(5), smaps and smaps_rollup)."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_SIZE = re.compile(r"(\w+): +(\d+) kB")


@dataclass(frozen=True)
class Resident:
    """Bytes of one process."""

    proportional_bytes: int
    """Its proportional set size (PSS): each page divided by the number of processes that have it."""
    private_bytes: int
    """Pages that no other process has."""
    shared_bytes: int
    """Pages that others have too, each counted whole."""


def resident(pid: int) -> Resident:
    """As of now. Raises OSError for a process that has ended or is another user's."""
    return _sum(Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())


def resident_of(pid: int, path: Path) -> Resident:
    """The same of a file that the process has mapped, by its absolute path; nothing of one that it has not."""
    smaps = Path(f"/proc/{pid}/smaps").read_text()
    blocks = re.findall(rf"^.* {re.escape(str(path))}\n((?:\w+:.*\n)+)", smaps, flags=re.MULTILINE)
    return _sum(line for block in blocks for line in block.splitlines())


def _sum(lines: Iterable[str]) -> Resident:
    size: Counter[str] = Counter()
    for name, kilobytes in (found.groups() for found in map(_SIZE.match, lines) if found):
        size[name] += int(kilobytes) * 1024
    return Resident(
        size["Pss"], size["Private_Clean"] + size["Private_Dirty"], size["Shared_Clean"] + size["Shared_Dirty"]
    )
