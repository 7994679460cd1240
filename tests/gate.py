"""A named pipe that another process reads before each of its steps, so that a test decides when they happen."""

import fcntl
import os
import termios
from array import array
from pathlib import Path


class Gate:
    """The pipe at `path`. A context manager: leaving it removes the pipe, and whoever looks for it goes on freely."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self._pipe = os.open(path, os.O_RDWR)

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.unlink(self.path)
        os.write(self._pipe, b"." * 4096)  # for whoever is waiting already
        os.close(self._pipe)

    def open(self, steps: int = 1, order: bytes = b".") -> None:
        """Let so many steps happen."""
        os.write(self._pipe, order * steps)

    def left(self) -> int:
        """How many steps that were let happen have not happened."""
        waiting = array("i", [0])
        fcntl.ioctl(self._pipe, termios.FIONREAD, waiting)
        return waiting[0]
