"""The function's image in Docker, spoken to through the emulator: the image's own, or ours mounted into it."""

import json
import platform
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.errors import NotInstalledError
from tools.emulator import BINARIES

URL = "http://{address}/2015-03-31/functions/function/invocations"
LISTEN_S = 30.0
EMULATOR = "/aws-lambda-rie"


class ContainerFailedError(Exception):
    """Docker did not start the image, or it did not answer. The message says what is known."""


def require_docker() -> None:
    """Raise NotInstalledError unless a Docker daemon answers."""
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        raise NotInstalledError("containers: Docker does not answer; apt-get install docker.io and start dockerd")


def sizes_in(image: str, names: Iterable[str]) -> dict[str, int]:
    """Bytes of each file of `image` that is named, largest first; 0 where it is not there."""
    code = (
        "import json, os, sys; names = json.load(sys.stdin); "
        "print(json.dumps({n: os.path.getsize(n) if os.path.isfile(n) else 0 for n in names}))"
    )
    command = ["docker", "run", "--rm", "--interactive", "--entrypoint", "python3", image, "-c", code]
    done = subprocess.run(command, input=json.dumps(sorted(names)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ContainerFailedError(f"docker run: {done.stderr.strip()[-300:]}")
    sizes: dict[str, int] = json.loads(done.stdout)
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


class Container:
    """A fresh container. Entering starts it and waits until its emulator listens; the function starts when invoked.

    Its root is read-only and only /tmp can be written, as in Lambda.
    """

    def __init__(self, image: str, environment: Mapping[str, str], vcpus: float | None, memory_mb: int | None) -> None:
        limits = [f"--cpus={vcpus:.3f}"] if vcpus else []
        limits += [f"--memory={memory_mb}m"] if memory_mb else []
        variables = [part for name, value in environment.items() for part in ("--env", f"{name}={value}")]
        options = ["--read-only", "--tmpfs=/tmp", "--publish=127.0.0.1::8080", *limits, *variables]
        self._command = ["docker", "run", "--detach", *options, *_emulated(image)]
        self._name = ""

    def __enter__(self) -> "Container":
        started = subprocess.run(self._command, capture_output=True, text=True, check=False)
        if started.returncode:
            raise ContainerFailedError(f"docker run: {started.stderr.strip()[-300:]}")
        self._name = started.stdout.strip()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["docker", "rm", "--force", self._name], capture_output=True, check=False)

    def invoke(self, event: Any, timeout: float) -> tuple[float, Any]:
        """Seconds from sending the event to the whole answer, and the answer."""
        address = self._address()
        request = urllib.request.Request(URL.format(address=address), json.dumps(event).encode())
        give_up = time.monotonic() + LISTEN_S
        while True:
            begun = time.monotonic()
            try:
                with urllib.request.urlopen(request, timeout=timeout) as response:
                    answer = response.read()
                return time.monotonic() - begun, json.loads(answer)
            except urllib.error.HTTPError as error:  # the function's process ended; the body says why
                raise ContainerFailedError(error.read().decode(errors="replace")[:300]) from None
            except (ConnectionError, urllib.error.URLError) as error:
                # Refused or reset before the emulator listens; that attempt reached no function.
                refused = isinstance(getattr(error, "reason", error), ConnectionError)
                if not refused or time.monotonic() > give_up:
                    raise ContainerFailedError(f"no answer: {error}; {self._log()}") from None
                time.sleep(0.02)
            except ValueError:
                raise ContainerFailedError(f"the answer is not JSON: {answer[:300]!r}") from None

    def process(self) -> int:
        """The emulator's process id, as this machine sees it."""
        asked = ["docker", "inspect", "--format", "{{.State.Pid}}", self._name]
        return int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)

    def _address(self) -> str:
        port = subprocess.run(["docker", "port", self._name, "8080"], capture_output=True, text=True, check=False)
        if port.returncode or not port.stdout.strip():
            raise ContainerFailedError(f"the container ended: {self._log()}")
        return port.stdout.splitlines()[0].strip()

    def _log(self) -> str:
        log = subprocess.run(["docker", "logs", self._name], capture_output=True, text=True, check=False)
        return (log.stdout + log.stderr).strip()[-300:]


def image_bytes(image: str) -> int:
    """Size of an image. Raises ContainerFailedError where Docker has none of that name."""
    asked = ["docker", "inspect", "--format", "{{.Size}}", image]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    if found.returncode:
        raise ContainerFailedError(f"docker has no image {image}; `make image` builds the project's")
    return int(found.stdout)


def _emulated(image: str) -> list[str]:
    """The end of the `docker run` command. AWS's base images start the emulator themselves; others get ours."""
    asked = ["docker", "inspect", "--format", "{{json .Config}}", image]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    if found.returncode:
        raise ContainerFailedError(f"docker has no image {image}; `make image` builds the project's")
    config = json.loads(found.stdout)
    start = [*(config["Entrypoint"] or []), *(config["Cmd"] or [])]
    if any("lambda-entrypoint" in part for part in start):
        return [image]
    return [f"--volume={_emulator_binary()}:{EMULATOR}:ro", f"--entrypoint={EMULATOR}", image, *start]


def _emulator_binary() -> Path:
    """The emulator for this machine's architecture, from the package that `make` installs."""
    machine = "arm64" if platform.machine() in ("aarch64", "arm64") else "x86_64"
    return (BINARIES / f"aws-lambda-rie-{machine}").resolve()
