"""Asks the kernel for a model's files while there is something else to do: imports take as long as the disk.

Knows nothing of what the files mean; whoever needs one and cannot read it says so.
"""

import os
import threading
from pathlib import Path


def read_ahead(model_dir: str) -> None:
    """Start reading all files of a local directory into the page cache, the small ones first; returns at once."""
    if not hasattr(os, "posix_fadvise"):
        return  # not Linux: nothing to tell the kernel
    threading.Thread(target=_request, args=(Path(model_dir),), name="read-ahead", daemon=True).start()


def _request(directory: Path) -> None:
    try:
        files = sorted((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
        for path in files:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(descriptor)
    except OSError:
        return
