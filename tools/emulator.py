"""The function under Lambda's own runtime client and runtime interface emulator, without Docker.

Starts the emulator that the `aws-sam-cli` package carries, sends it events one at a time (it panics on two at once) and
collects what the function logged. Knows how Lambda is spoken to; nothing of models, events or answers.
"""

import json
import os
import platform
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tools.output import STOP_SECONDS, Lines

ROOT = Path(__file__).resolve().parent.parent
BINARIES = ROOT / ".venv" / "aws-sam-cli" / "samcli" / "local" / "rapid"
RUNTIME_CLIENT = (sys.executable, "-m", "aws.runtime", "handler.lambda_handler")
PATH = "/2015-03-31/functions/function/invocations"

LISTEN_SECONDS = 10.0
"""How long the emulator may take until it accepts connections; it needs some hundredths."""
LOG_SECONDS = 2.0
"""How long an invocation's last log line may take to arrive after its answer."""
START_ATTEMPTS = 3
"""A port found free can be taken before the emulator listens on it; then another is tried."""
DIE_WITH_PARENT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execv(sys.argv[1], sys.argv[1:])"
"""Start a program that gets SIGTERM when this process ends, whatever ended it (prctl's PR_SET_PDEATHSIG)."""

INIT_REPORT = re.compile(r"INIT REPORT\(durationMs: ([0-9.]+)\)")


class EmulatorError(Exception):
    """The emulator cannot be started or does not answer. The message is one sentence for a person."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back from one invocation."""

    status: int
    """200 also for a function error, whose payload then has an `errorType`; 502 when the function process ended."""
    payload: Any
    """The function's return value, or the text itself where it is not JSON (a timeout)."""
    seconds: float
    """From sending the event to having the whole answer."""
    output: tuple[str, ...]
    """The lines that the function and the platform wrote to standard output during it, the init phase's included."""

    @property
    def log(self) -> list[dict[str, Any]]:
        """The structured lines of `output`: log records and metrics."""
        return [json.loads(line) for line in self.output if line.startswith("{")]


class Emulator:
    """One execution environment. A context manager: entering starts the emulator, leaving stops all its processes.

    The init phase runs within the first invocation, as it does for an environment that is started on demand.
    """

    def __init__(self, env: Mapping[str, str], command: Sequence[str] = RUNTIME_CLIENT) -> None:
        """`env` is added to this process's environment; `command` is the function process.

        `AWS_LAMBDA_FUNCTION_MEMORY_SIZE` and `_TIMEOUT` in `env` are the emulator's own settings as well: it hands the
        first on to the function (3008 without) and ends an invocation after the second (300 seconds without).
        """
        self._env = {**os.environ, **env}
        self._command = command
        self._process: subprocess.Popen[str] | None = None
        self._url = ""
        self._output = Lines()
        self._platform = Lines()

    def __enter__(self) -> "Emulator":
        for _ in range(START_ATTEMPTS):
            if self._start():
                return self
        raise EmulatorError(f"The emulator does not start: {self._platform.last()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def init_seconds(self) -> float | None:
        """How long the first init phase took by the emulator's own clock; None before it has ended."""
        found = [match for line in self._platform.all() if (match := INIT_REPORT.search(line))]
        return float(found[0][1]) / 1000 if found else None

    def invoke(self, event: Any, timeout: float = 300) -> Reply:
        """Send one event and wait for the answer. Bytes are sent as they are, anything else as JSON."""
        seen = len(self._output.all())
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        started = time.monotonic()
        try:
            with urllib.request.urlopen(urllib.request.Request(self._url, body), timeout=timeout) as response:
                status, answer = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, answer = error.code, error.read()
        except OSError as error:
            raise EmulatorError(f"The emulator does not answer: {error}") from None
        seconds = time.monotonic() - started
        if status == 200:
            self._output.wait_for("REPORT RequestId", after=seen, seconds=LOG_SECONDS)
        text = answer.decode()
        try:
            payload = json.loads(text)
        except ValueError:
            payload = text
        return Reply(status, payload, seconds, tuple(self._output.all()[seen:]))

    def _start(self) -> bool:
        """Start the emulator and wait until it listens; False when it ended instead."""
        port, api_port = _free_ports(2)
        self._url = f"http://127.0.0.1:{port}{PATH}"
        addresses = [f"--runtime-interface-emulator-address=127.0.0.1:{port}"]
        addresses.append(f"--runtime-api-address=127.0.0.1:{api_port}")
        self._process = subprocess.Popen(
            [sys.executable, "-c", DIE_WITH_PARENT, str(_binary()), *addresses, *self._command],
            cwd=ROOT,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._output.read(self._process.stdout)
        self._platform.read(self._process.stderr)
        give_up = time.monotonic() + LISTEN_SECONDS
        try:
            while self._process.poll() is None and time.monotonic() < give_up:
                if _listens(port):
                    return True
                time.sleep(0.01)
        except BaseException:
            self._stop()
            raise
        self._stop()
        return False

    def _stop(self) -> None:
        """End the emulator, which ends the function; kill it if it does not."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._output.close()
        self._platform.close()


def _binary() -> Path:
    """The emulator for this machine's architecture."""
    machine = {"aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), "x86_64")
    binary = BINARIES / f"aws-lambda-rie-{machine}"
    if sys.platform != "linux":
        raise EmulatorError(
            "Lambda's runtime interface emulator is a Linux program; run this on Linux or in a container."
        )
    if not binary.is_file():
        raise EmulatorError(f"{binary} is missing; `make run` and `make test` install it.")
    return binary


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
