"""What the kernel says a process holds in memory, shared pages told from its own (proc(5), smaps_rollup)."""

from dataclasses import dataclass
from pathlib import Path


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
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]  # the first line is a range of addresses
    size = {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in rollup}
    return Resident(
        size["Pss"], size["Private_Clean"] + size["Private_Dirty"], size["Shared_Clean"] + size["Shared_Dirty"]
    )
