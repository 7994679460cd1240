"""The server as a process of its own, and what its processes hold in memory."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

from benchmarks.resident import resident
from benchmarks.variants import Variant
from tools.emulator import DIE_WITH_PARENT

READY_S = 300


class ServerFailedError(Exception):
    """The server did not come up. The message is the last thing it wrote."""


class Server:
    """`python -m server` with some workers on a free port. Entering waits until every worker has its model."""

    def __init__(self, variant: Variant, workers: int, root: Path | None = None) -> None:
        """Of this project, or of the checkout in `root`."""
        self._root = root
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self._variant = variant
        self._workers = workers
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Server":
        self._process = subprocess.Popen(
            [sys.executable, "-c", DIE_WITH_PARENT, sys.executable, "-m", "server"],
            cwd=self._root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "HF_HUB_OFFLINE": "1",
                "MODEL_DIR": str(self._variant.directory),
                "HOST": "127.0.0.1",
                "PORT": str(self.port),
                "WORKERS": str(self._workers),
                **self._variant.environment,
            },
        )
        try:
            self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()

    def proportional_memory(self) -> int:
        """Bytes resident in the server and all its workers, pages that they share counted once (PSS)."""
        assert self._process is not None
        total = 0
        for process in [self._process.pid, *_descendants(self._process.pid)]:
            try:
                total += resident(process).proportional_bytes
            except OSError:
                continue
        return total

    def _wait(self) -> None:
        """Until the log says that each worker started, which it does when its model is loaded, and the port answers."""
        assert self._process is not None
        assert self._process.stderr is not None
        started, last = 0, "it wrote nothing"
        give_up = time.monotonic() + READY_S
        for line in self._process.stderr:
            last = line.strip() or last
            started += "Application startup complete" in line
            if started == self._workers or time.monotonic() > give_up:
                break
        if started < self._workers:
            raise ServerFailedError(f"the server did not start: {last[:300]}")
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=READY_S).read()
                return
            except urllib.error.URLError as error:  # it listens a little after it said so
                if time.monotonic() > give_up:
                    raise ServerFailedError(f"the server does not answer: {error.reason}") from None
                time.sleep(0.01)


def _descendants(pid: int) -> list[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return children + [below for child in children for below in _descendants(child)]
