"""The real application on a real socket: in a thread of the test's process, or in a process of its own."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from app import create_app
from server.connections import BOUNDS
from server.serving import Serving

ROOT = Path(__file__).parent.parent
PATIENCE = 60.0
"""Seconds after which a condition that has not come true fails a test; never a measure of speed."""
SMALL_BUFFER = 16_384
"""Bytes the kernel holds of what was sent and not read, so that a client that does not read is soon noticed."""


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return as soon as `condition` holds."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, f"waited {PATIENCE} s for: {what}"
        time.sleep(0.002)


@contextmanager
def served(serving: Serving) -> Iterator[str]:
    """The base URL of the application with this instead of what its lifespan would load."""
    app = create_app()
    app.state.serving = serving
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
    config = uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=10, **BOUNDS)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started, "the server listens")
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        serving.engine_thread.close()
        assert not thread.is_alive()


class ServerProcess:
    """A server process, its port and what it wrote. A context manager."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], port: int, log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self._log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env={**os.environ, **env},
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    def listens(self) -> bool:
        """Whether a connection is accepted."""
        assert self.process.poll() is None, self.output
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except OSError:
            return False
        return True

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
