"""What a child process prints, line by line, while it runs."""

import sys
import threading
from typing import IO

STOP_SECONDS = 5.0
"""How long a process may take to end before it is killed, and its last lines to arrive."""


class Lines:
    """The lines of a pipe, read by a thread so that the writer never blocks on a full one."""

    def __init__(self, *, echo: bool = False) -> None:
        """With `echo` each line goes to standard error as well."""
        self._echo = echo
        self._lines: list[str] = []
        self._arrived = threading.Condition()
        self._thread: threading.Thread | None = None

    def read(self, stream: IO[str] | None) -> None:
        assert stream is not None  # opened with PIPE
        self._thread = threading.Thread(target=self._collect, args=(stream,), daemon=True)
        self._thread.start()

    def _collect(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                if self._echo:
                    sys.stderr.write(line)
                with self._arrived:
                    self._lines.append(line.rstrip("\n"))
                    self._arrived.notify_all()

    def close(self) -> None:
        """Read to the end, which comes when the last process that writes to the pipe ends."""
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def all(self) -> list[str]:
        with self._arrived:
            return list(self._lines)

    def last(self) -> str:
        return next((line for line in reversed(self.all()) if line.strip()), "it wrote nothing")

    def wait_for(self, text: str, *, after: int, seconds: float) -> None:
        """Wait until a line past the first `after` ones begins with `text`; give up silently after `seconds`."""
        with self._arrived:
            self._arrived.wait_for(lambda: any(line.startswith(text) for line in self._lines[after:]), seconds)
