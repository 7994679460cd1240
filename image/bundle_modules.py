"""`python -m image.bundle_modules FILE`: everything that a cold start and its first request import, in one file.

Used in the image build, where packages, our code and a compiled model lie where they will be. A child process starts as
Lambda would start the function, with the model that MODEL_DIR names, and says what it has imported.
"""

import json
import marshal
import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES, SourceFileLoader
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import CodeType

from startup.bundle import SIZE_BYTES, Entry

Module = tuple[str, CodeType | None, bool]
"""Its path, its code (None: an extension module), whether it is a package."""

_START = """
import json, sys
import aws.runtime
import handler

class Context:
    function_name = invoked_function_arn = aws_request_id = "of the image's build"
    memory_limit_in_mb = 1769
    def get_remaining_time_in_millis(self): return 60_000

handler.lambda_handler({"prompt": "x", "max_tokens": 1}, Context())
found = {name: getattr(module, "__spec__", None) for name, module in list(sys.modules.items())}
print(json.dumps([
    [name, spec.origin, spec.submodule_search_locations is not None]
    for name, spec in found.items() if spec is not None and spec.has_location and spec.name == name
]))
"""


def modules_of_a_start() -> dict[str, Module]:
    """Every module by its name, in the order of import. Raises CalledProcessError where the start fails."""
    command = [sys.executable, "-c", _START]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    modules: dict[str, Module] = {}
    for name, origin, is_package in json.loads(done.stdout.splitlines()[-1]):
        if origin.endswith(tuple(EXTENSION_SUFFIXES)):
            modules[name] = (origin, None, is_package)
        elif origin.endswith(".py"):
            modules[name] = (origin, SourceFileLoader(name, origin).get_code(name), is_package)
    return modules


def write(path: Path, modules: dict[str, Module]) -> None:
    """Write a bundle."""
    entries: dict[str, Entry] = {}
    codes = bytearray()
    for name, (origin, code, is_package) in modules.items():
        found = os.stat(origin)
        data = b"" if code is None else marshal.dumps(code)
        entries[name] = (origin, found.st_size, int(found.st_mtime), len(codes), len(data), is_package)
        codes += data
    index = marshal.dumps(entries)
    path.write_bytes(MAGIC_NUMBER + len(index).to_bytes(SIZE_BYTES, "little") + index + codes)


def main() -> None:
    """Write the bundle and say what is in it."""
    (path,) = map(Path, sys.argv[1:])
    modules = modules_of_a_start()
    write(path, modules)
    print(f"{len(modules)} modules, {path.stat().st_size / 1e6:.1f} MB in {path}")


if __name__ == "__main__":
    main()
