"""The server as a process: what it loads and how often, how it starts and fails to, and how it ends."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.running_server import PATIENCE, ROOT, ServerProcess, free_port, wait_until


def uvicorn(application: str, tmp_path: Path, *options: str, **env: str) -> ServerProcess:
    port = free_port()
    command = ["-m", "uvicorn", application, "--port", str(port), *options]
    return ServerProcess(command, env, port, tmp_path / "server.log")


def test_each_worker_loads_once(llama_directory: Path, tmp_path: Path) -> None:
    loads = tmp_path / "loads"
    env = {"MODEL_DIR": str(llama_directory), "LOADS": str(loads), "THREADS": "1"}
    with uvicorn("tests.counted_loads_app:app", tmp_path, "--workers", "2", **env) as server:
        wait_until(lambda: server.output.count("Application startup complete") == 2, "both workers serve")
        for _ in range(20):  # a connection each: the workers share them
            answer = httpx2.post(
                f"{server.url}/v1/completions", json={"prompt": "x", "max_tokens": 2}, timeout=PATIENCE
            )
            assert answer.status_code == 200
        loaded_by = loads.read_text().split()
    assert len(loaded_by) == len(set(loaded_by)) == 2


@pytest.mark.parametrize(
    ("command", "env", "message"),
    [
        (["uvicorn", "app:app"], {"MODEL_DIR": "/nowhere"}, "/nowhere is not a directory; set MODEL_DIR to"),
        (["uvicorn", "app:app"], {"CONCURRENCY": "0"}, "CONCURRENCY is '0'; set it to a whole number of at least 1."),
        (["server"], {"MODEL_DIR": "/nowhere", "WORKERS": "2", "PORT": "0"}, "/nowhere is not a directory"),
        (["server"], {"PORT": "eighty"}, "PORT is 'eighty'; set it to a whole number"),
    ],
)
def test_a_load_that_fails_ends_the_process_with_its_sentence(
    command: list[str], env: dict[str, str], message: str, tmp_path: Path
) -> None:
    with ServerProcess(["-m", *command], env, 0, tmp_path / "server.log") as server:
        assert server.process.wait(PATIENCE) not in (0, -signal.SIGKILL)
        assert message in server.output
        assert "Traceback" not in server.output


def test_a_worker_that_dies_while_its_supervisor_asks_how_it_is_gets_replaced(
    llama_directory: Path, tmp_path: Path
) -> None:
    port = free_port()
    env = {"MODEL_DIR": str(llama_directory), "WORKERS": "2", "PORT": str(port), "THREADS": "1"}
    with ServerProcess(["-m", "server"], env, port, tmp_path / "server.log") as server:
        wait_until(lambda: server.output.count("Application startup complete") == 2, "both workers serve")
        worker = int(re.findall(r"Started server process \[(\d+)\]", server.output)[0])
        os.kill(worker, signal.SIGSTOP)
        waits_in = Path(f"/proc/{server.process.pid}/wchan")
        wait_until(lambda: "poll" in waits_in.read_text(), "the supervisor waits for the stopped worker")
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: server.output.count("Application startup complete") == 3, "another worker serves")


def test_nothing_is_answered_before_the_model_is_loaded(llama_directory: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    env = {"MODEL_DIR": str(llama_directory), "LOAD_WAITS_FOR": str(gate)}
    with uvicorn("tests.deterministic_app:app", tmp_path, **env) as server:
        wait_until(lambda: "Waiting for application startup" in server.output, "the process has begun to load")
        assert not server.listens()
        gate.touch()
        wait_until(server.listens, "the server listens")
        assert httpx2.get(f"{server.url}/ready").json()["status"] == "ready"


def stream(server: ServerProcess, **body: Any) -> Iterator[Any]:
    """The events of a streamed completion as they arrive, `[DONE]` left out."""
    request = {"prompt": "the fox", "temperature": 0, "stream": True, **body}
    with httpx2.stream("POST", f"{server.url}/v1/completions", json=request, timeout=PATIENCE) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                yield json.loads(line.removeprefix("data: "))


def test_sigterm_lets_running_requests_finish_and_refuses_new_ones(llama_directory: Path, tmp_path: Path) -> None:
    env = {"MODEL_DIR": str(llama_directory), "SECONDS_PER_TOKEN": "0.02"}
    with uvicorn("tests.deterministic_app:app", tmp_path, **env) as server:
        wait_until(server.listens, "the server listens")
        running = stream(server, max_tokens=100)
        first = next(running)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Draining: 1 requests" in server.output, "the drain has begun")
        refused = httpx2.post(f"{server.url}/v1/completions", json={"prompt": "x"})
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "shutting_down"
        assert httpx2.get(f"{server.url}/health").status_code == 200
        parts = [first, *running]
        assert parts[-1]["choices"][0]["finish_reason"] == "length"
        assert "cut_by_deadline" not in parts[-1]["choices"][0]
        assert server.process.wait(PATIENCE) == -signal.SIGTERM
        assert "Application shutdown complete" in server.output


def test_sigterm_cuts_what_lasts_too_long_and_leaves_those_who_do_not_read(
    llama_directory: Path, tmp_path: Path
) -> None:
    env = {
        "MODEL_DIR": str(llama_directory),
        "SECONDS_PER_TOKEN": "0.02",
        "DRAIN_TIMEOUT": "0.5",
        "BODY_TIMEOUT": "999",
    }
    with uvicorn("tests.deterministic_app:app", tmp_path, **env) as server:
        wait_until(server.listens, "the server listens")
        running = stream(server, max_tokens=600)
        parts = [next(running)]
        with closing(socket.create_connection(("127.0.0.1", server.port))) as half_sent:
            headers = b"host: localhost\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n"
            half_sent.sendall(b"POST /v1/completions HTTP/1.1\r\n" + headers)
            assert half_sent.recv(12) == b"HTTP/1.1 100"  # the body is being read
            server.process.send_signal(signal.SIGTERM)
            parts += running
            assert parts[-1]["choices"][0]["cut_by_deadline"] is True
            assert server.process.wait(PATIENCE) is not None


def test_memory_stays_flat_under_200_clients_and_20_mb_bodies(llama_directory: Path, tmp_path: Path) -> None:
    env = {"MODEL_DIR": str(llama_directory), "CONCURRENCY": "1", "QUEUE_LENGTH": "20"}
    with uvicorn("tests.deterministic_app:app", tmp_path, "--no-access-log", **env) as server:
        wait_until(server.listens, "the server listens")
        limits = httpx2.Limits(max_connections=None)

        async def burst() -> set[int]:
            async with httpx2.AsyncClient(base_url=server.url, timeout=PATIENCE, limits=limits) as client:
                asked = [client.post("/v1/completions", json={"prompt": "x", "max_tokens": 30}) for _ in range(200)]
                return {answer.status_code for answer in await asyncio.gather(*asked)}

        asyncio.run(burst())
        peak = peak_memory(server.process.pid)
        for _ in range(2):
            assert asyncio.run(burst()) == {200, 429}
            answer = httpx2.post(f"{server.url}/v1/completions", content=b" " * 20_000_000, timeout=PATIENCE)
            assert answer.status_code == 413
        assert peak_memory(server.process.pid) - peak < 8_000_000


def test_40_clients_with_prompts_of_a_megabyte_are_refused_in_little_memory(
    llama_directory: Path, tmp_path: Path
) -> None:
    with uvicorn(
        "tests.deterministic_app:app", tmp_path, MODEL_DIR=str(llama_directory), BODY_TIMEOUT=str(PATIENCE)
    ) as server:
        wait_until(server.listens, "the server listens")

        async def burst() -> list[httpx2.Response]:
            async with httpx2.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
                body = json.dumps({"prompt": "the fox " * 120_000})
                return await asyncio.gather(*(client.post("/v1/completions", content=body) for _ in range(40)))

        before = peak_memory(server.process.pid)
        answers = asyncio.run(burst())
        assert {answer.status_code for answer in answers} == {400}
        assert {answer.json()["error"]["code"] for answer in answers} == {"context_length_exceeded"}
        assert peak_memory(server.process.pid) - before < 150_000_000  # their bodies, and a few copies of some


def test_the_access_log_holds_routes_and_nothing_a_client_wrote(llama_directory: Path, tmp_path: Path) -> None:
    with uvicorn("tests.deterministic_app:app", tmp_path, MODEL_DIR=str(llama_directory)) as server:
        wait_until(server.listens, "the server listens")
        for path in ("/health?who=marker", "/v1/models/marker", "/marker?a=marker", "/v1/completions/?marker"):
            httpx2.get(server.url + path, headers={"x-marker": "marker"}, timeout=PATIENCE)
        httpx2.request("MARKER", f"{server.url}/health", timeout=PATIENCE)
        wait_until(lambda: server.output.count("HTTP/1.1") == 5, "all are logged")
        for logged in ("GET /health ", "GET /v1/models/{id} ", "GET other ", "GET /v1/completions ", "other /health "):
            assert f'"{logged}HTTP/1.1"' in server.output
        assert "marker" not in server.output.lower()


WORKER = """
import os, signal, sys
from types import SimpleNamespace
from server.metrics import Metrics
metrics = Metrics(SimpleNamespace(load_ms={"total_ms": 1000.0}))
metrics.admitted.set(float(sys.argv[1]))
print(metrics.exposition().decode())
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_under_way_in_a_worker_that_was_killed_is_no_longer_counted(tmp_path: Path) -> None:
    def worker(*arguments: str) -> str:
        env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-c", WORKER, *arguments], cwd=ROOT, env=env, capture_output=True, text=True
        ).stdout

    worker("3", "killed")
    figures = worker("2", "lives")
    assert "causal_lm_admitted 2.0" in figures
    assert "causal_lm_loads_total 2.0" in figures


def peak_memory(pid: int) -> int:
    """The most memory the process ever had resident, bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
