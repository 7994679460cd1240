"""How old this process was when the project's first line ran. Entry points import it before anything else.

The kernel knows when a process started (`/proc/self/stat`, field 22, clock ticks since boot); the difference to now is
what the interpreter and the runtime client took before any of our code could run.
"""

import os
import time


def process_age() -> float:
    """Seconds since this process started, 10 ms fine; 0 where there is no /proc."""
    try:
        with open("/proc/self/stat", "rb") as stat:
            # The second field is the command in parentheses and may hold anything, spaces and parentheses included.
            ticks = int(stat.read().rpartition(b")")[2].split()[19])
    except OSError:
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


AGE_AT_IMPORT = process_age()
IMPORTED_AT = time.monotonic()
