"""Which files of a directory are opened, by any process and any library: the kernel's own word (inotify).

Python's audit hooks would miss what Rust and C++ open, and that is where weights are read.
"""

import ctypes
import os
import struct
from collections import Counter
from pathlib import Path
from types import TracebackType

IN_OPEN = 0x20
_EVENT = struct.Struct("iIII")
_LIBC = ctypes.CDLL(None, use_errno=True)


class FileOpens:
    """A context manager that counts opens of a directory's files, by name, from entering on."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> "FileOpens":
        self._descriptor = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if _LIBC.inotify_add_watch(self._descriptor, os.fsencode(self._directory), IN_OPEN) < 0:
            raise OSError(ctypes.get_errno(), f"cannot watch {self._directory}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def take(self) -> Counter[str]:
        """The opens since the last call, and forget them. The directory itself does not count."""
        counted: Counter[str] = Counter()
        while True:
            try:
                data = os.read(self._descriptor, 65536)
            except BlockingIOError:
                return counted
            at = 0
            while at < len(data):
                length = _EVENT.unpack_from(data, at)[3]
                at += _EVENT.size
                name = data[at : at + length].rstrip(b"\0").decode()
                at += length
                if name:
                    counted[name] += 1
