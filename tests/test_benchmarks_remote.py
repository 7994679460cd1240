"""The remote benchmark against a server that speaks Lambda's API, and against recorded REPORT lines."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.remote.report import usd_per_thousand
from benchmarks.remote.report_line import parse_report

pytest.importorskip("matplotlib")

ON_DEMAND = (
    "START RequestId: 8f5 Version: $LATEST\nEND RequestId: 8f5\n"
    "REPORT RequestId: 8f5\tDuration: 412.43 ms\tBilled Duration: 781 ms\tMemory Size: 1769 MB\t"
    "Max Memory Used: 402 MB\tInit Duration: 367.91 ms\t\n"
)
WARM = (
    "REPORT RequestId: 8f6\tDuration: 398.10 ms\tBilled Duration: 399 ms\tMemory Size: 1769 MB\t"
    "Max Memory Used: 405 MB\t\n"
)
RESTORED = (
    "RESTORE_REPORT Restore Duration: 310.00 ms\nREPORT RequestId: 8f7\tDuration: 420.00 ms\tBilled Duration: 433 ms\t"
    "Memory Size: 1769 MB\tMax Memory Used: 380 MB\tRestore Duration: 310.54 ms\tBilled Restore Duration: 12 ms\t\n"
)
AS_JSON = json.dumps(
    {
        "time": "2026-11-21T10:00:00Z",
        "type": "platform.report",
        "record": {
            "requestId": "8f8",
            "metrics": {
                "durationMs": 12.5,
                "billedDurationMs": 13,
                "memorySizeMB": 512,
                "maxMemoryUsedMB": 90,
                "initDurationMs": 250.2,
            },
        },
    }
)


def test_a_cold_report_line_gives_its_init() -> None:
    assert parse_report(ON_DEMAND) == {
        "duration_ms": 412.43,
        "billed_ms": 781,
        "memory_mb": 1769,
        "used_mb": 402,
        "init_ms": 367.91,
    }


def test_a_restored_report_line_gives_its_restore() -> None:
    report = parse_report(RESTORED)
    assert report["restore_ms"] == 310.54
    assert report["billed_restore_ms"] == 12
    assert "init_ms" not in report


def test_a_json_report_says_the_same() -> None:
    assert parse_report(AS_JSON)["init_ms"] == 250.2
    assert parse_report("no report here") == {}


def test_a_thousand_requests_cost_what_lambda_billed() -> None:
    prices = {"request": 2e-7, "gb_second": 1.66667e-5}
    usd = usd_per_thousand({"billed_ms": 1000, "memory_mb": 1024}, prices)
    assert usd == pytest.approx(1000 * (2e-7 + 1.66667e-5))


class _Lambda(BaseHTTPRequestHandler):
    """A function's environment: cold after each configuration change, warm after."""

    memory = 1769
    cold = True
    changes = 0

    def _answer(self, body: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        configuration = {"LastUpdateStatus": "Successful", "State": "Active", "MemorySize": self.memory}
        self._answer(configuration if self.path.endswith("/configuration") else {"Configuration": configuration})

    def do_PUT(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).memory = body.get("MemorySize", self.memory)
        type(self).cold = True
        type(self).changes += 1
        self._answer({"MemorySize": self.memory})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        log = (ON_DEMAND if self.cold else WARM).replace("1769", str(self.memory))
        type(self).cold = False
        self._answer({"usage": {}}, {"X-Amz-Log-Result": base64.b64encode(log.encode()).decode()})

    def log_message(self, format: str, *arguments: Any) -> None:
        """Silent."""


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    _Lambda.changes = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Lambda)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_cold_starts_are_forced_at_every_memory_size_and_told_from_warm_ones(endpoint: str, tmp_path: Path) -> None:
    arguments = [
        "remote",
        "story",
        "--endpoint-url",
        endpoint,
        "--memory-mb",
        "1769",
        "3008",
        "--cold",
        "2",
        "--warm",
        "3",
    ]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "remote.json").read_text())
    assert content["complete"]
    assert _Lambda.changes == 4
    assert [("init_ms" in s, s["memory_mb"]) for s in content["samples"]] == [
        *[(True, 1769)] * 2, *[(False, 1769)] * 3, *[(True, 3008)] * 2, *[(False, 3008)] * 3
    ]  # fmt: skip
    page = (tmp_path / "remote.md").read_text()
    assert "cold, 3,008 MB" in page
    assert "warm, 1,769 MB" in page


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--memory-mb", "64"], "128 to 10240 MB"),
        (["--cold", "0", "--warm", "0"], "one of them above zero"),
        (["--event", "/nowhere.json"], "not a readable JSON file"),
        (["--endpoint-url", "http://127.0.0.1:9", "--cold", "0", "--warm", "1"], "cannot be measured"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert main(["remote", "story", *arguments, "--out", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err
