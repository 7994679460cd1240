"""What this process may really use: vCPUs and memory, by Lambda's word or the control group's, not by what shows.

Reads the environment and the kernel's files; computes nothing with them that only one engine needs.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path

MB_PER_VCPU = 1769
"""Lambda gives one vCPU for this many MB of function memory (AWS docs, configuration-memory)."""
CGROUP = Path("/sys/fs/cgroup")


def memory_sharers(env: Mapping[str, str] = os.environ) -> int:
    """Processes that share this environment's memory, this one included: those of Lambda Managed Instances, or of
    `python -m server`.
    """
    return max(_count(env, "AWS_LAMBDA_MAX_CONCURRENCY"), _count(env, "WORKERS"))


def usable_vcpus(env: Mapping[str, str] = os.environ) -> int:
    """Threads worth starting: at least 1, at most the cores this process may run on.

    On Lambda the memory size decides, rounded to whole vCPUs; elsewhere the control group's CPU quota. Where several
    processes share an environment on Lambda each takes its part of the cores: there memory and vCPUs are chosen apart.
    A server's workers each take all, since often only one of them has something to do.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = env.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    decides = memory.isdecimal() and "AWS_LAMBDA_MAX_CONCURRENCY" not in env
    share = int(memory) / MB_PER_VCPU if decides else _cpu_quota()
    usable = cores if share is None else min(cores, round(share))
    return max(1, usable // _count(env, "AWS_LAMBDA_MAX_CONCURRENCY"))


def available_memory(env: Mapping[str, str] = os.environ) -> int:
    """Bytes this process can still take: the least that function size, control group and machine allow.

    Where several processes share them, its part.
    """
    used, sharers = _private_bytes(), memory_sharers(env)
    limits = [_machine_available() / sharers]
    memory = env.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    if memory.isdecimal():
        limits.append(int(memory) * 2**20 / sharers - used)
    limit = _read_number(CGROUP / "memory.max")
    if limit is not None:
        limits.append(limit / sharers - used)
    return math.floor(min(limits))


def _count(env: Mapping[str, str], name: str) -> int:
    text = env.get(name, "")
    return max(1, int(text)) if text.isdecimal() else 1


def _cpu_quota() -> float | None:
    """CPUs the control group (version 2) grants, None without a limit."""
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _machine_available() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), math.inf)


def _private_bytes() -> int:
    """Resident memory less what is backed by files, which the kernel can take back."""
    try:
        _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
        return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
