"""A real Chromium without a window, driven over its own debugging protocol through a pair of pipes.

No package between it and the tests: a command is a line of JSON that ends in a NUL, and so is what comes back.
"""

import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from types import TracebackType
from typing import Any

from tests.running_server import PATIENCE

COMMAND = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One page. A context manager; `complaints` is what the browser had against it: errors, refused sources."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self._number = 0
        self._received = b""

    def __enter__(self) -> "Page":
        assert COMMAND is not None
        self._profile = tempfile.TemporaryDirectory(prefix="chromium", ignore_cleanup_errors=True)
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
        profile = f"--user-data-dir={self._profile.name}"
        pipes = 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null'  # where the browser looks for them
        self._process = subprocess.Popen(
            ["sh", "-c", pipes, "sh", COMMAND, *options, "--remote-debugging-pipe", profile],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._send(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate(timeout=PATIENCE)
        self._profile.cleanup()

    def open(self, url: str) -> None:
        """Go there."""
        self._send("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = self._send("Runtime.evaluate", expression=script, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Return as soon as a JavaScript expression holds."""
        give_up = time.monotonic() + PATIENCE
        while not self.run(script):
            assert time.monotonic() < give_up, f"waited {PATIENCE} s for {script}; {self.complaints}"
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """What a reader sees of the last element that `selector` finds."""
        text: str = self.run(f"[...document.querySelectorAll({json.dumps(selector)})].at(-1)?.innerText ?? ''")
        return text

    def fill(self, selector: str, text: str) -> None:
        """Type into the last field that `selector` finds."""
        self.run(f"[...document.querySelectorAll({json.dumps(selector)})].at(-1).value = {json.dumps(text)}")

    def click(self, selector: str) -> None:
        """Click the last element that `selector` finds."""
        self.run(f"[...document.querySelectorAll({json.dumps(selector)})].at(-1).click()")

    def compose(self, text: str) -> None:
        """Have an input method's unfinished text in the field that has the focus."""
        self._send("Input.imeSetComposition", text=text, selectionStart=len(text), selectionEnd=len(text))

    def finish(self, text: str) -> None:
        """End the composition with this text."""
        self._send("Input.insertText", text=text)

    def press_enter(self) -> None:
        """Press and release the key in the field that has the focus."""
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        self._send("Input.dispatchKeyEvent", type="keyDown", text="\r", **key)
        self._send("Input.dispatchKeyEvent", type="keyUp", **key)

    def _send(self, method: str, **params: Any) -> dict[str, Any]:
        """A command's result."""
        self._number += 1
        session = {"sessionId": self._session} if hasattr(self, "_session") else {}
        command = {"id": self._number, "method": method, "params": params, **session}
        os.write(self._to, json.dumps(command).encode() + b"\0")
        while (message := self._receive()).get("id") != self._number:
            self._note(message)
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._from], [], [], PATIENCE)
            assert ready, "the browser answers nothing"
            read = os.read(self._from, 1 << 16)
            assert read, "the browser has ended"
            self._received += read
        message, _, self._received = self._received.partition(b"\0")
        received: dict[str, Any] = json.loads(message)
        return received

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        if event.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
