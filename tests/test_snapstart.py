"""SnapStart: the hooks under the real runtime client, and two lives of one snapshot."""

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aws import snapstart

ROOT = Path(__file__).parent.parent
HANDLER = """
import random
from aws import snapstart

seen = []
random.seed(1)
snapstart.register(lambda: seen.append("touched"), lambda: seen.append("restored"))

def handler(event, context):
    return {"seen": seen, "value": random.random()}
"""


def draws() -> set[float]:
    """One number from each generator of the process."""
    return {random.random(), float(np.random.rand()), float(torch.rand(1))}


def test_two_restores_of_one_snapshot_never_sample_alike() -> None:
    """GIVEN a snapshot of all random state WHEN it is restored twice THEN only the hook keeps the two lives apart."""
    snapshot = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def live(hook: Callable[[], None]) -> set[float]:
        random.setstate(snapshot[0])
        np.random.set_state(snapshot[1])
        torch.set_rng_state(snapshot[2])
        hook()
        return draws()

    assert live(lambda: None) == live(lambda: None), "or the rest of this test shows nothing"
    assert not live(snapstart.reseed) & live(snapstart.reseed)


class RuntimeApi(BaseHTTPRequestHandler):
    """Lambda's Runtime API, as far as SnapStart needs it: restore, one invocation, then silence."""

    calls: list[str]
    answered: threading.Event
    response: Any
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.calls.append(self.path.rpartition("2018-06-01/runtime/")[2])
        body = b"{}"
        if self.path.endswith("/invocation/next"):
            if "invocation/next" in self.calls[:-1]:
                self.answered.wait()
                self.connection.close()
                return
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Lambda-Runtime-Trace-Id", "Root=1")
            self.send_header("Lambda-Runtime-Aws-Request-Id", "1")
            self.send_header("Lambda-Runtime-Deadline-Ms", "9999999999999")
            self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:1:function:f")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        type(self).response = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.calls.append(self.path.rpartition("2018-06-01/runtime/")[2])
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.answered.set()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def runtime_api() -> Iterator[tuple[str, type[RuntimeApi]]]:
    api = type("Api", (RuntimeApi,), {"calls": [], "answered": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), api)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}", api
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("kind", ["snap-start", "on-demand"])
def test_the_runtime_client_runs_the_hooks_after_a_restore(
    kind: str, runtime_api: tuple[str, type[RuntimeApi]], tmp_path: Path
) -> None:
    address, api = runtime_api
    (tmp_path / "snap_handler.py").write_text(HANDLER)
    process = subprocess.Popen(
        [sys.executable, "-m", "aws.runtime", "snap_handler.handler"],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": f"{tmp_path}:{ROOT}",
            "AWS_LAMBDA_RUNTIME_API": address,
            "AWS_LAMBDA_INITIALIZATION_TYPE": kind,
        },
    )
    try:
        assert api.answered.wait(20), api.calls
    finally:
        process.kill()
        process.wait()
    restored = kind == "snap-start"
    assert ("restore/next" in api.calls) == restored
    assert api.response["seen"] == (["touched", "restored"] if restored else [])
    assert (api.response["value"] != 0.13436424411240122) == restored, "the first draw after random.seed(1)"


TOUCHED = """
import json, sys
from types import SimpleNamespace
import handler

context = SimpleNamespace(
    aws_request_id="r", function_name="f", memory_limit_in_mb=1769, invoked_function_arn="arn",
    get_remaining_time_in_millis=lambda: 60_000,
)
handler._touch()
touched, found = set(sys.modules), {}
schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
shape = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
for name, body in {
    "completion": {"prompt": "Once"},
    "chat": {"messages": [{"role": "user", "content": "Hi"}]},
    "shape": {"prompt": "Once", "response_format": shape},
}.items():
    answer = handler.lambda_handler({**body, "max_tokens": 20}, context)
    found[name] = {"cold": answer["timings"]["cold_start"], "imported": sorted(set(sys.modules) - touched)}
print(json.dumps({"touched": "generation.grammar_library" in touched, **found}))
"""


def test_what_first_requests_import_is_in_the_snapshot() -> None:
    code = [sys.executable, "-c", TOUCHED]
    done = subprocess.run(code, cwd=ROOT, capture_output=True, text=True, check=True)
    *lines, last = done.stdout.splitlines()
    found = json.loads(last)
    assert found.pop("touched")
    assert [each["imported"] for each in found.values()] == [[], [], []]
    assert [each["cold"] for each in found.values()] == [True, False, False], "the snapshot's own answers do not count"
    assert sum('"tokens generated"' in line for line in lines) == 3
