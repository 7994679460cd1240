"""`measured_run.py FILE COMMAND...`: runs the command and writes what it took into FILE, as JSON, in seconds and bytes.

A process of its own that imports next to nothing: the kernel's figure for the peak memory of a child includes what its
parent held when it started it.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main(report: Path, command: list[str]) -> int:
    """The command's exit status."""
    begun = time.monotonic()
    _, status, usage = os.wait4(subprocess.Popen(command).pid, 0)
    took = {
        "seconds": round(time.monotonic() - begun, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_bytes": 1024 * usage.ru_maxrss,
    }
    report.write_text(json.dumps(took))
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
