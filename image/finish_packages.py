"""Make an installed package folder fit for an image: nothing that no request can reach, everything byte-compiled.

Used in the image build, once as packages are installed and once when the model has been prepared. Every line of the
lists says why its files are not needed; what is not listed stays. Byte code is never checked against its source at
import (unchecked-hash): one `stat` less per module, and file times that a copy changed cannot make it stale. A module
without it would be compiled anew at every cold start.
"""

import argparse
import compileall
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from py_compile import PycInvalidationMode

UNUSED = (
    "bin",  # console scripts; the image starts modules
    "torch/share",  # CMake files
    "**/*.a",  # static libraries, for linking
    "torch/bin/protoc*",  # torch_shm_manager stays: `import torch` looks for it
    "torch/bin/test*",
    "torch/test",
    "torch/testing/_internal/py312*",  # a test's syntax sample that Python 3.11 cannot compile
    "**/tests",
    "**/__pycache__",
)
"""Needed neither by the compiler nor at run time."""
FOR_THE_COMPILER = (
    "torch/include",  # headers
    "setuptools",  # torch names it for building C++ extensions
    "setuptools-*.dist-info",
    "_distutils_hack",
    "distutils-precedence.pth",
    "pkg_resources",
)
"""Not needed once the model is prepared."""
AWS_SERVICES = frozenset({"s3", "sts", "secretsmanager", "ssm", "sqs"})
"""Services whose botocore models stay: for the model, the keys (secret or parameter), batch results, credentials."""


def unused(packages: Path) -> Iterator[Path]:
    """Every file or folder below `packages` that nothing needs from the start."""
    for pattern in UNUSED:
        yield from packages.glob(pattern)
    for service in (packages / "botocore" / "data").glob("*/"):
        if service.is_dir() and service.name not in AWS_SERVICES:
            yield service


def for_the_compiler(packages: Path) -> Iterator[Path]:
    """Every file or folder below `packages` that only compiling a model needs."""
    for pattern in FOR_THE_COMPILER:
        yield from packages.glob(pattern)


def delete(paths: list[Path]) -> int:
    """Delete files and folders; bytes freed."""
    freed = 0
    for path in paths:
        if path.is_dir():
            freed += sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
            shutil.rmtree(path)
        elif path.exists():
            freed += path.lstat().st_size
            path.unlink()
    return freed


def main() -> None:
    """Delete, say how much went, and byte-compile on all cores; exit status 1 if a module does not compile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("when", choices=("installed", "prepared"), help="packages just installed, or model prepared")
    parser.add_argument("packages", type=Path)
    options = parser.parse_args()
    chosen = unused if options.when == "installed" else for_the_compiler
    print(f"{delete(list(chosen(options.packages))) / 1e6:.0f} MB deleted from {options.packages}")
    if options.when == "installed":
        unchecked = PycInvalidationMode.UNCHECKED_HASH
        sys.exit(not compileall.compile_dir(options.packages, quiet=1, workers=0, invalidation_mode=unchecked))


if __name__ == "__main__":
    main()
