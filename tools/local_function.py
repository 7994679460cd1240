"""The function on this machine under its own runtime client, with answers that stream: no emulator, no Docker.

The emulator of `tools/emulator.py` is AWS's own but gives an answer back only when it is whole; this gives it back as
it arrives.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from tools.emulator import DIE_WITH_PARENT, ROOT, RUNTIME_CLIENT
from tools.output import STOP_SECONDS, Lines
from tools.runtime_api import Answer, RuntimeApi


class LocalFunction:
    """One execution environment. A context manager: entering starts the function process, leaving stops it."""

    def __init__(
        self,
        env: Mapping[str, str],
        command: Sequence[str] = RUNTIME_CLIENT,
        api: RuntimeApi | None = None,
        *,
        echo: bool = False,
    ) -> None:
        """`env` is added to this process's environment; `command` is the function process.

        With `echo` what it prints goes to standard error as well.
        """
        self._env = {**os.environ, **env}
        self._command = command
        self.api = api or RuntimeApi()
        self._output = Lines(echo=echo)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "LocalFunction":
        self.api.__enter__()
        self._process = subprocess.Popen(
            [sys.executable, "-c", DIE_WITH_PARENT, *self._command],
            cwd=ROOT,
            env={**self._env, "AWS_LAMBDA_RUNTIME_API": self.api.address},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._output.read(self._process.stdout)
        threading.Thread(target=self._watch, args=(self._process,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        assert process is not None
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._output.close()
        self.api.__exit__(kind, error, trace)

    @property
    def output(self) -> list[str]:
        """The lines that the function has written so far."""
        return self._output.all()

    def _watch(self, process: "subprocess.Popen[str]") -> None:
        process.wait()
        self.api.give_up()

    def start(self, event: Any, seconds: float = 300, headers: Mapping[str, str] | None = None) -> Answer:
        """As `RuntimeApi.start`."""
        return self.api.start(event, seconds, headers)

    def invoke(self, event: Any, seconds: float = 300, headers: Mapping[str, str] | None = None) -> Answer:
        """As `RuntimeApi.invoke`."""
        return self.api.invoke(event, seconds, headers)
