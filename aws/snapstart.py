"""What a process must do over when it wakes from a SnapStart snapshot that other processes wake from, too.

Lambda runs the init phase once per published version, takes a snapshot, and restores it into every new environment.
So random state from before the snapshot is the same everywhere, and the first caller after a restore comes to a cold
start.
"""

import gc
import os
import random
import sys
from collections.abc import Callable


def register(before_snapshot: Callable[[], None], after_restore: Callable[[], None]) -> None:
    """Have `before_snapshot` called before the snapshot is taken, and `after_restore` after each restore from it, once
    random state is fresh. Does nothing without SnapStart.

    `before_snapshot` does once what each environment's first request would otherwise do; `after_restore` replaces what
    must not be as old as the snapshot: clients, clocks, the cold-start flag.
    """
    if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") != "snap-start":
        return
    import snapshot_restore_py  # type: ignore[import-untyped]

    snapshot_restore_py.register_before_snapshot(gc.collect)  # the last one registered is called first
    snapshot_restore_py.register_before_snapshot(before_snapshot)
    snapshot_restore_py.register_after_restore(reseed)
    snapshot_restore_py.register_after_restore(after_restore)


def reseed() -> None:
    """Seed every generator in the process from the operating system, which is fresh after a restore."""
    random.seed()
    if numpy := sys.modules.get("numpy.random"):
        numpy.seed()
    if torch := sys.modules.get("torch"):
        torch.seed()
