"""A function process that can take only so many more bytes once its model is loaded; then allocations fail.

`python -m tests.memory_limited BYTES handler.lambda_handler` takes the place of `python -m aws.runtime ...`.
"""

import resource
import runpy
import sys
from pathlib import Path

import handler

__all__ = ["handler"]

if __name__ == "__main__":
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(sys.argv.pop(1))
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    runpy.run_module("aws.runtime", run_name="__main__")
