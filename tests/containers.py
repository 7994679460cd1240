"""Running the image under test as Lambda would: read-only, no network, no shared memory, one vCPU."""

import contextlib
import json
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tools.emulator import BINARIES

IMAGE = "causallm:latest"
"""What `make image` builds."""
LIKE_LAMBDA = (
    *("--read-only", "--tmpfs", "/tmp", "--ipc=none", "--network", "none"),
    *("--memory", "1769m", "--cpus", "1", "--env", "HOME=/nowhere"),
)
EMULATOR = BINARIES / f"aws-lambda-rie-{'arm64' if platform.machine() == 'aarch64' else 'x86_64'}"
POST = """
import sys, urllib.request
url = "http://127.0.0.1:8080/2015-03-31/functions/function/invocations"
print(urllib.request.urlopen(url, sys.stdin.buffer.read(), timeout=300).read().decode())
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
        return json.loads(self.run("python3", "-c", POST, stdin=json.dumps(event)))

    def log(self) -> str:
        """All the container printed so far."""
        command = ["docker", "logs", self.identity]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout

    def wait_for(self, text: str, seconds: float = 120) -> None:
        """Return when the log holds `text`. Raises TimeoutError with the log."""
        give_up_at = time.monotonic() + seconds
        while text not in self.log():
            if time.monotonic() > give_up_at:
                raise TimeoutError(self.log())
            time.sleep(0.1)


@contextlib.contextmanager
def started(options: Sequence[str], command: Sequence[str]) -> Iterator[Container]:
    """The image, started with `docker run OPTIONS IMAGE COMMAND`; removed afterwards."""
    run = ["docker", "run", "--detach", *options, IMAGE, *command]
    identity = subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
    try:
        yield Container(identity)
    finally:
        subprocess.run(["docker", "rm", "--force", identity], capture_output=True, check=True)


@contextlib.contextmanager
def function(*options: str) -> Iterator[Container]:
    """The image as a function, under Lambda's restrictions, with the emulator mounted into it."""
    mount = ["--volume", f"{EMULATOR}:/emulator:ro", "--entrypoint", "/emulator"]
    command = ["python3", "-m", "aws.entry", "aws.runtime", "handler.lambda_handler"]
    with started([*LIKE_LAMBDA, *mount, *options], command) as container:
        container.wait_for("exec 'python3'")
        yield container
