"""The levels of CPUs that an artifact can have code for, and which of them this machine reaches.

Imports next to nothing: what reads files ahead asks it before anything else is imported.
"""

import os
from collections.abc import Iterable

from engines.errors import LoadError

# What each level's code may use, best level first. x86-64-v4 here also asks for VNNI, which makes it worth having.
_V3 = frozenset(["avx2", "fma", "f16c", "bmi2"])
LEVEL_FLAGS: dict[str, frozenset[str]] = {
    "x86-64-v4": _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_vnni"},
    "x86-64-v3": _V3,
    # -march=armv8.2-a+fp16+dotprod: dot products, half precision (scalar and vector), atomics in one instruction.
    "aarch64": frozenset({"asimddp", "fphp", "asimdhp", "atomics"}),
}
_MACHINE_LEVELS = {"x86_64": ("x86-64-v4", "x86-64-v3"), "aarch64": ("aarch64",)}


def levels_here() -> tuple[str, ...]:
    """The levels of this machine's architecture, best first, whether or not its CPU reaches them."""
    return _MACHINE_LEVELS.get(os.uname().machine, ())


def machine_of(level: str) -> str:
    """The architecture that has `level`, as `uname` names it."""
    return next(machine for machine, levels in _MACHINE_LEVELS.items() if level in levels)


def cpu_flags() -> frozenset[str]:
    """The instruction-set flags of this machine's CPU as Linux names them."""
    with open("/proc/cpuinfo") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return frozenset(value.split())
    return frozenset()


def choose_level(available: Iterable[str], flags: frozenset[str], wanted: str | None = None) -> str:
    """The best of the `available` levels that a CPU with `flags` can run, or `wanted` if it is one of those."""
    available = list(available)
    usable = [
        level
        for level, needed in LEVEL_FLAGS.items()
        if level in available and needed <= flags and level in levels_here()
    ]
    if wanted is not None:
        usable = [level for level in usable if level == wanted]
    if usable:
        return usable[0]
    asked = f"level {wanted}" if wanted else f"levels {', '.join(available)}"
    raise LoadError(
        f"The artifact's {asked} cannot run on this {os.uname().machine} CPU; "
        f"compile it for one that can (`python -m compiler --isa ...`)."
    )
