"""Building images, and running them as Lambda would: read-only, no network, no shared memory, one vCPU."""

import contextlib
import ipaddress
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.emulator import BINARIES

ROOT = Path(__file__).parent.parent
IMAGE = "causallm:latest"
"""What `make image` builds."""
LIKE_LAMBDA = (
    *("--read-only", "--tmpfs", "/tmp:exec", "--ipc=none"),  # as in Lambda, code in /tmp can be mapped
    *("--memory", "1769m", "--cpus", "1", "--env", "HOME=/nowhere"),
)
EMULATOR = BINARIES / f"aws-lambda-rie-{'arm64' if platform.machine() == 'aarch64' else 'x86_64'}"
POST = """
import json, sys, time, urllib.request
url, event = "http://127.0.0.1:8080/2015-03-31/functions/function/invocations", sys.stdin.buffer.read()
sent = time.monotonic()
with urllib.request.urlopen(url, event, timeout=300) as response:
    answer = response.read()
print(json.dumps({"seconds": time.monotonic() - sent, "answer": json.loads(answer)}))
"""


@dataclass(frozen=True)
class Container:
    """A running container."""

    identity: str

    def run(self, *command: str, stdin: str = "") -> str:
        """What a command in the container prints. Raises CalledProcessError."""
        exec_command = ["docker", "exec", "--interactive", self.identity, *command]
        return subprocess.run(exec_command, input=stdin, capture_output=True, text=True, check=True).stdout

    def invoke(self, event: Any) -> Any:
        """The function's answer, through the emulator inside."""
        return self.invoke_timed(event)[1]

    def invoke_timed(self, event: Any) -> tuple[float, Any]:
        """Seconds from sending the event to having the whole answer, and the answer."""
        replied = json.loads(self.run("python3", "-c", POST, stdin=json.dumps(event)))
        return replied["seconds"], replied["answer"]

    def log(self) -> str:
        """All the container printed so far."""
        command = ["docker", "logs", self.identity]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout

    def wait_for(self, text: str, times: int = 1, seconds: float = 120) -> None:
        """Return when the log holds `text` as many times. Raises TimeoutError with the log."""
        give_up_at = time.monotonic() + seconds
        while self.log().count(text) < times:
            if time.monotonic() > give_up_at:
                raise TimeoutError(self.log())
            time.sleep(0.1)


@contextlib.contextmanager
def started(options: Sequence[str], command: Sequence[str], image: str = IMAGE) -> Iterator[Container]:
    """The image, started with `docker run OPTIONS IMAGE COMMAND`; removed afterwards."""
    run = ["docker", "run", "--detach", *options, image, *command]
    identity = subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
    try:
        yield Container(identity)
    finally:
        subprocess.run(["docker", "rm", "--force", identity], capture_output=True, check=True)


@contextlib.contextmanager
def function(*options: str, image: str = IMAGE, network: str = "none") -> Iterator[Container]:
    """The image as a function, under Lambda's restrictions, with the emulator mounted into it."""
    mount = ["--volume", f"{EMULATOR}:/emulator:ro", "--entrypoint", "/emulator"]
    command = ["python3", "-m", "aws.entry", "aws.runtime", "handler.lambda_handler"]
    with started([*LIKE_LAMBDA, "--network", network, *mount, *options], command, image) as container:
        container.wait_for("exec 'python3'")
        yield container


def build(arguments: Sequence[str], tag: str | None = None) -> subprocess.CompletedProcess[str]:
    """`docker build` with build arguments, by the classic builder as `sam build` does.

    On the base of `make image`, so that its layers are found again.
    """
    base = [f"BASE={os.environ['BASE_IMAGE']}"] if "BASE_IMAGE" in os.environ else []
    options = [f"--build-arg={argument}" for argument in (*base, *arguments)]
    return subprocess.run(
        ["docker", "build", *options, *(["--tag", tag] if tag else []), "."],
        cwd=ROOT,
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


def size(image: str) -> int:
    """Bytes of an image."""
    command = ["docker", "image", "inspect", "--format", "{{.Size}}", image]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def host_address() -> str:
    """The address under which containers and builds reach this machine: the first of Docker's default network."""
    command = ["docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}"]
    subnet = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return str(ipaddress.ip_network(subnet)[1])
