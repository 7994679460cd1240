"""A worker process: started, spoken to line by line, timed from outside, ended."""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.resident import Resident, resident, resident_of


class PeerFailedError(Exception):
    """A worker that crashed or said that it cannot go on. The message says what is known."""


class Session:
    """One worker. Entering starts it and waits until it has loaded; leaving ends it."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[str] | None = None
        self.started = 0.0
        self.load_s = 0.0
        """What loading took by the worker's own clock, its imports included."""

    def __enter__(self) -> "Session":
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        try:
            self.load_s = self._read()["load_s"]
        except PeerFailedError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def generate(self, ids: Sequence[int], tokens: int) -> dict[str, Any]:
        """Greedy tokens and the worker's times. Raises PeerFailedError."""
        return self._ask({"ids": list(ids), "tokens": tokens})

    def shaped(self, ids: Sequence[int], tokens: int, schema: str | None) -> dict[str, Any]:
        """As `generate`, of a document of a JSON schema, whose end may come first. Raises PeerFailedError."""
        return self._ask({"ids": list(ids), "tokens": tokens, "schema": schema})

    def together(self, prompts: Sequence[Sequence[int]], tokens: int) -> dict[str, Any]:
        """Many prompts at once: `first_s` per sequence, `total_s`, `made` tokens. Raises PeerFailedError."""
        return self._ask({"prompts": [list(ids) for ids in prompts], "tokens": tokens})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise PeerFailedError(self._ending()) from None
        return self._read()

    @property
    def peak_memory(self) -> int:
        """Most resident memory so far, bytes."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        # A process that has just ended has no such line.
        return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)

    def resident(self) -> Resident:
        """What it holds in memory now. Raises PeerFailedError when it has ended."""
        assert self._process is not None
        try:
            return resident(self._process.pid)
        except OSError:
            raise PeerFailedError(self._ending()) from None

    def resident_of(self, path: Path) -> Resident:
        """The same of a file that it has mapped. Raises PeerFailedError when it has ended."""
        assert self._process is not None
        try:
            return resident_of(self._process.pid, path)
        except OSError:
            raise PeerFailedError(self._ending()) from None

    def _read(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                message: dict[str, Any] = json.loads(line)
                if "error" in message:
                    raise PeerFailedError(str(message["error"])[:300])
                return message
        raise PeerFailedError(self._ending())

    def _ending(self) -> str:
        assert self._process is not None
        return f"its process ended with status {self._process.wait()} and no answer"
