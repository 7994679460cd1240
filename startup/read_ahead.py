"""Asks the kernel for a model's files while there is something else to do: imports take as long as the disk.

Of an artifact, code of levels that this CPU does not run and what only some requests need are left where they are.
Whoever needs a file and cannot read it says so.
"""

import os
import threading
from pathlib import Path

from engines.cpu_levels import LEVEL_FLAGS, choose_level, cpu_flags
from engines.errors import LoadError
from startup.model_files import LATER


def read_ahead(model_dir: str) -> None:
    """Start reading the files of a local directory into the page cache, the small ones first; returns at once."""
    if not hasattr(os, "posix_fadvise"):
        return  # not Linux: nothing to tell the kernel
    threading.Thread(target=_request, args=(Path(model_dir),), name="read-ahead", daemon=True).start()


def _request(directory: Path) -> None:
    try:
        found = [path for path in directory.rglob("*") if path.is_file() and path.name not in LATER]
        unused = _unused_levels({path.parent.name for path in found})
        wanted = [path for path in found if not any(level in str(path.relative_to(directory)) for level in unused)]
        for path in sorted(wanted, key=lambda path: path.stat().st_size):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(descriptor)
    except OSError:
        return


def _unused_levels(folders: set[str]) -> set[str]:
    """Of the levels that have a folder of code, those whose code this CPU does not run."""
    levels = folders & LEVEL_FLAGS.keys()
    try:
        return levels - {choose_level(levels, cpu_flags())}
    except LoadError:  # there are none, or none that runs here, as the loader will say
        return levels
