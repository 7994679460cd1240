"""Modules that a start imports, from one file: an image has one, `startup/modules.bin` (`image/bundle_modules.py`).

Python looks for a module in each folder of its path and opens a file for each: three fourths of the files of a start.
Here it asks the bundle first. A module whose source is no longer the one that was bundled comes from its own file.
Nothing differs for who imports: names, paths, packages and tracebacks are as always.

Imports nothing that Python has not imported by itself when it starts a module.
"""

import marshal
import os
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec, SourceFileLoader
from importlib.util import MAGIC_NUMBER
from types import CodeType, ModuleType

FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "modules.bin")
SIZE_BYTES = 8
"""A bundle begins with Python's MAGIC_NUMBER, the size of the index in so many bytes, the index, and then all code."""
Entry = tuple[str, int, int, int, int, bool]
"""Of the index: path, its bytes and seconds of its last change; place and bytes of its code, no bytes for an extension
module; whether it is a package."""


class BundledLoader(SourceFileLoader):
    """Loads one module's code from an open bundle."""

    def __init__(self, name: str, path: str, descriptor: int, place: int, size: int) -> None:
        super().__init__(name, path)
        self._where = (descriptor, size, place)

    def get_code(self, fullname: str) -> CodeType:
        """See `importlib.abc.InspectLoader.get_code`."""
        code: CodeType = marshal.loads(os.pread(*self._where))
        return code


class Bundle:
    """An entry of `sys.meta_path`: finds the modules of an open bundle."""

    def __init__(self, descriptor: int, first: int, entries: dict[str, Entry]) -> None:
        """Code lies from byte `first` on."""
        self._descriptor = descriptor
        self._first = first
        self._entries = entries

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder.find_spec`."""
        if name not in self._entries:
            return None
        origin, source_size, changed, place, size, is_package = self._entries[name]
        try:
            found = os.stat(origin)
        except OSError:
            return None
        if found.st_size != source_size or int(found.st_mtime) != changed:
            return None
        loader = (
            BundledLoader(name, origin, self._descriptor, self._first + place, size)
            if size
            else ExtensionFileLoader(name, origin)
        )
        spec = ModuleSpec(name, loader, origin=origin, is_package=is_package)
        spec.has_location = True
        if is_package:
            spec.submodule_search_locations = [os.path.dirname(origin)]
        return spec


def install(path: str) -> None:
    """Have imports ask the bundle in `path` first. None, or one of another Python, changes nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    head = os.pread(descriptor, len(MAGIC_NUMBER) + SIZE_BYTES, 0)
    if not head.startswith(MAGIC_NUMBER):
        os.close(descriptor)
        return
    size = int.from_bytes(head[len(MAGIC_NUMBER) :], "little")
    entries = marshal.loads(os.pread(descriptor, size, len(head)))
    sys.meta_path.insert(0, Bundle(descriptor, len(head) + size, entries))


install(FILE)
