"""Disk and memory of the machine that builds the image, asked before the long work that would run out of them."""

import os
import shutil
from pathlib import Path

from image.errors import PrepareError

CONTROL_GROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container reads its memory limit, by version of control groups; `max` or a huge number is none."""
COMPILER_BYTES_PER_PARAMETER = 4
"""The least the compiler holds: it loads the checkpoint in float32."""


def require_space(size: int, target: Path) -> None:
    """Raises PrepareError unless the disk of `target` holds `size` bytes more."""
    free = shutil.disk_usage(target).free
    if size > free:
        raise PrepareError(f"The model needs {size / 1e9:.1f} GB and the build's disk has {free / 1e9:.1f} GB free.")


def memory() -> int:
    """Bytes of memory that this build may use."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    limits += [
        int(text) for path in CONTROL_GROUP_LIMITS if path.is_file() and (text := path.read_text().strip()) != "max"
    ]
    return min(limits)


def require_memory_to_compile(parameters: int) -> None:
    """Raises PrepareError where the compiler would surely run out of memory on a model of so many parameters."""
    needed = COMPILER_BYTES_PER_PARAMETER * parameters
    if needed > memory():
        raise PrepareError(
            f"Compiling {parameters / 1e9:.1f} billion parameters needs over {needed / 1e9:.1f} GB of memory and the "
            f"build has {memory() / 1e9:.1f} GB; give Docker more, or set ENGINE=transformers."
        )
