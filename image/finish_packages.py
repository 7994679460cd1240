"""Make an installed package folder fit for an image: nothing that no request can reach, everything byte-compiled.

Used once, in the image build. Every line of the list says why its files are not needed at run time; what is not listed
stays. Byte code is never checked against its source at import (unchecked-hash): one `stat` less per module, and file
times that a copy changed cannot make it stale. A module without it would be compiled anew at every cold start.
"""

import compileall
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from py_compile import PycInvalidationMode

NOT_AT_RUN_TIME = (
    "bin",  # console scripts; the image starts modules
    "torch/include",  # headers, for building extensions
    "torch/share",  # CMake files
    "**/*.a",  # static libraries, for linking
    "torch/bin/protoc*",  # torch_shm_manager stays: `import torch` looks for it
    "torch/bin/test*",
    "torch/test",
    "torch/testing/_internal/py312*",  # a test's syntax sample that Python 3.11 cannot compile
    "setuptools",  # torch names it for building C++ extensions
    "setuptools-*.dist-info",
    "_distutils_hack",
    "distutils-precedence.pth",
    "pkg_resources",
    "**/tests",
    "**/__pycache__",
)
AWS_SERVICES = frozenset({"s3", "sts", "secretsmanager", "ssm", "sqs"})
"""Services whose botocore models stay: for the model, the keys (secret or parameter), batch results, credentials."""


def reachable_by_nothing(packages: Path) -> Iterator[Path]:
    """Every file or folder below `packages` that the image does not need."""
    for pattern in NOT_AT_RUN_TIME:
        yield from packages.glob(pattern)
    for service in (packages / "botocore" / "data").glob("*/"):
        if service.is_dir() and service.name not in AWS_SERVICES:
            yield service


def main() -> None:
    """Delete, say how much went, and compile the rest on all cores; exit status 1 if a module does not compile."""
    packages = Path(sys.argv[1])
    freed = 0
    for path in list(reachable_by_nothing(packages)):
        if path.is_dir():
            freed += sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
            shutil.rmtree(path)
        elif path.exists():
            freed += path.lstat().st_size
            path.unlink()
    print(f"{freed / 1e6:.0f} MB deleted from {packages}")
    unchecked = PycInvalidationMode.UNCHECKED_HASH
    sys.exit(not compileall.compile_dir(packages, quiet=1, workers=0, invalidation_mode=unchecked))


if __name__ == "__main__":
    main()
