"""What the kernel knows of a running function process: peak memory, bytes read, faults; and the files it opens."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.errors import NotInstalledError

TOKEN = "BENCHMARK_RUN"
"""An environment variable that marks the process to look for."""
_CPU = Path("/sys/fs/cgroup/cpu")
_UNIFIED = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000


def find_process(token: str) -> Path | None:
    """`/proc/PID` of the function process started with `TOKEN=token`."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if f"{TOKEN}={token}".encode() in environment and b"lambda_handler" in command and b"-rie" not in command:
            return process
    return None


def read_costs(process: Path) -> dict[str, int]:
    """Bytes and counts so far: peak resident memory, of it file-backed, read from disk, read by calls, major faults."""
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
    io = dict(line.split(": ") for line in (process / "io").read_text().splitlines())
    stat = (process / "stat").read_text().rpartition(")")[2].split()
    return {
        "peak_memory_bytes": int(status["VmHWM"].split()[0]) * 1024,
        "file_backed_bytes": int(status["RssFile"].split()[0]) * 1024,
        "disk_read_bytes": int(io["read_bytes"]),
        "read_call_bytes": int(io["rchar"]),
        "major_faults": int(stat[9]),
    }


def drop_page_cache() -> None:
    """Forget every clean cached page of the machine. Raises PermissionError where that is not allowed."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("1")


def may_drop_page_cache() -> bool:
    """Whether this process is allowed to."""
    return os.access("/proc/sys/vm/drop_caches", os.W_OK)


@contextmanager
def cpu_quota(vcpus: float | None) -> Iterator[None]:
    """Everything this process starts meanwhile gets `vcpus` of CPU time, as Lambda gives by memory size.

    Needs a writable CPU control group, version 1 or 2. None leaves things as they are.
    """
    if vcpus is None:
        yield
        return
    version_1 = (_CPU / "cpu.cfs_quota_us").exists()
    home = _CPU if version_1 else _UNIFIED
    group = home / f"benchmark-{os.getpid()}"
    quota = round(vcpus * _PERIOD_US)
    group.mkdir()
    try:
        if version_1:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (group / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
        (group / "cgroup.procs").write_text(str(os.getpid()))
        yield
    finally:
        (home / "cgroup.procs").write_text(str(os.getpid()))
        for _ in range(100):
            try:
                group.rmdir()
                break
            except OSError:
                subprocess.run(["sleep", "0.05"], check=False)


def may_limit_cpu() -> bool:
    """Whether a CPU control group can be made here."""
    return os.access(_CPU if (_CPU / "cpu.cfs_quota_us").exists() else _UNIFIED, os.W_OK)


def tracer(output: Path) -> list[str]:
    """The command prefix that writes every file a process and its threads open to `output`."""
    if shutil.which("strace") is None:
        raise NotInstalledError("files opened: strace is not installed; apt-get install strace")
    return ["strace", "-f", "-qq", "-e", "trace=open,openat,execve", "-e", "status=successful", "-o", str(output)]


def opened_in(trace: str) -> set[str]:
    """The files that a trace opened, directories and the kernel's own (/proc, /sys, /dev) left out."""
    names = set()
    for line in trace.splitlines():
        found = re.search(r'open(?:at)?\((?:[^,"]+, )?"([^"]+)", ([A-Z_|]+)', line)
        if found and "O_DIRECTORY" not in found[2] and not found[1].startswith(("/proc/", "/sys/", "/dev/")):
            names.add(os.path.normpath(found[1]))
    return names
