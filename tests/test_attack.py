"""Hostile callers in numbers, against the handler and `python -m server` with the demo model: `make test-attack`.

Bounded in count and time, on the loopback interface alone. Each test notes what it sent and what came of it; with
ATTACK_REPORT the notes are written to that file.
"""

import base64
import copy
import json
import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from api.errors import ApiError
from aws.streaming import StreamedAnswer
from settings import ROOT
from tests.running_server import PATIENCE, ServerProcess, free_port, wait_until
from tests.test_server_process import peak_memory

pytestmark = pytest.mark.attack

MUTATED_EVENTS = 4000
SECONDS = 60.0
"""The most that one test spends on sending."""
DESCRIPTORS = 128
SERVER = f"""
import resource, runpy
resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS}))
runpy.run_module("server", run_name="__main__", alter_sys=True)
"""
CONTEXT = SimpleNamespace(
    aws_request_id="attack",
    function_name="f",
    function_version="1",
    memory_limit_in_mb=1769,
    invoked_function_arn="arn",
    get_remaining_time_in_millis=lambda: 20_000,
)
ODDITIES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 1e308, float("nan"), float("inf"), 0.5),
    *("", " ", "x", "\x00", "\ud800", "🦊" * 50, "x" * 100_000, "-1", " {{ 7 * 7 }}", "../../etc/passwd"),
    *(
        [],
        [[]],
        [[[]]],
        [""],
        [None],
        ["a", 1],
        [5, 6, 7],
        [10**9],
        [[5], [6]],
        ["x"] * 200,
        {},
        {"": ""},
        {"\ud800": 1},
    ),
    [{"role": "user", "content": "x"}],
    [{"type": "text", "text": "x"}],
]
NAMES = [
    "prompt",
    "messages",
    "max_tokens",
    "temperature",
    "top_p",
    "n",
    "stop",
    "logit_bias",
    "seed",
    "stream",
    "body",
]
NAMES += ["logprobs", "echo", "stream_options", "model", "headers", "requestContext", "version", "httpMethod", "\udfff"]


def sample_events() -> list[dict[str, Any]]:
    """Those in events/, their bodies as text and their answers short."""
    events: list[dict[str, Any]] = [json.loads(path.read_bytes()) for path in sorted((ROOT / "events").glob("*.json"))]
    for event in events:
        if event.get("isBase64Encoded"):
            body = json.loads(base64.b64decode(event["body"]))
            event |= {"body": json.dumps({**body, "max_tokens": 3}), "isBase64Encoded": False}
        elif "max_tokens" in event:
            event["max_tokens"] = 3
    return events


@pytest.fixture(scope="module")
def notes() -> Iterator[dict[str, str]]:
    """What each test found, by what it did; written to ATTACK_REPORT at the end where that names a file."""
    found: dict[str, str] = {}
    yield found
    report = os.environ.get("ATTACK_REPORT")
    if report:
        rows = "".join(f"| {attack} | {outcome} |\n" for attack, outcome in found.items())
        Path(report).write_text(
            "# What the attacks found\n\n"
            f"By `make test-attack ATTACK_REPORT={report}` on {os.cpu_count()} cores "
            f"(load average {os.getloadavg()[0]:.1f} at the end), the demo model, {DESCRIPTORS} descriptors.\n\n"
            f"| attack | outcome |\n| --- | --- |\n{rows}"
        )


@pytest.fixture(scope="module")
def handler() -> Any:
    os.environ["MAX_TOKENS"] = "4"
    import handler

    return handler


@contextmanager
def serving(tmp_path: Path, **env: str) -> Iterator[ServerProcess]:
    """`python -m server` with the demo model and few descriptors."""
    port = free_port()
    env = {"PORT": str(port), "THREADS": "1", **env}
    with ServerProcess(["-c", SERVER], env, port, tmp_path / "server.log") as server:
        wait_until(server.listens, "the server listens")
        yield server


@contextmanager
def health(server: ServerProcess) -> Iterator[list[float]]:
    """Asks /health again and again, a connection each, while the block runs. Gives the seconds each answer took."""
    seconds: list[float] = []
    ended = False

    def watch() -> None:
        while not ended:
            started = time.monotonic()
            assert httpx2.get(f"{server.url}/health", timeout=PATIENCE).status_code == 200
            seconds.append(time.monotonic() - started)
            time.sleep(0.02)

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield seconds
        finally:
            ended = True
        watching.result()


def completion(server: ServerProcess, **fields: Any) -> httpx2.Response:
    body = {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0, **fields}
    return httpx2.post(f"{server.url}/v1/completions", json=body, timeout=PATIENCE)


def slowest(seconds: list[float]) -> str:
    return f"/health {len(seconds)} times, at most {1000 * max(seconds):.0f} ms"


def mutated(chance: random.Random, value: Any) -> Any:
    """`value` with one thing in it changed, removed, added or renamed."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        name = chance.choice(list(value))
        match chance.randrange(8):
            case 0:
                del value[name]
            case 1:
                value[chance.choice(NAMES)] = chance.choice(ODDITIES)
            case 2:
                value[chance.choice(NAMES)] = value.pop(name)
            case _:
                value[name] = mutated(chance, value[name])
        return value
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        value[at] = mutated(chance, value[at])
        return value
    if isinstance(value, str) and value.startswith("{") and value.endswith("}") and chance.random() < 0.7:  # a body
        text = json.dumps(mutated(chance, json.loads(value)))
        return text if chance.random() < 0.8 else text[: chance.randrange(len(text) - 1)]
    return copy.deepcopy(chance.choice(ODDITIES))


def outcome_of(handler: Any, event: Any) -> str:
    """An HTTP answer's status, the name of a direct invocation's error, or `answered`."""
    try:
        answer = handler.lambda_handler(event, CONTEXT)
    except ApiError as error:
        str(error).encode()
        return type(error).__name__
    if isinstance(answer, StreamedAnswer):
        return "streamed" if b"".join(answer.parts).endswith(b"[DONE]\n\n") else "an incomplete stream"
    json.dumps(answer).encode()
    return str(answer.get("statusCode", "answered"))


def test_mutated_events_are_answered_or_refused(
    handler: Any, notes: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(1)
    events = sample_events()
    outcomes: Counter[str] = Counter()
    until = time.monotonic() + SECONDS
    while outcomes.total() < MUTATED_EVENTS and time.monotonic() < until:
        event = copy.deepcopy(chance.choice(events))
        for _ in range(chance.randint(1, 4)):
            event = mutated(chance, event)
        outcome = outcome_of(handler, event)
        assert outcome not in ("500", "InternalError", "an incomplete stream"), event
        outcomes[outcome] += 1
        capfd.readouterr()
    assert handler.lambda_handler({"prompt": "Once", "max_tokens": 1}, CONTEXT)["choices"]
    said = ", ".join(f"{count} x {outcome}" for outcome, count in sorted(outcomes.items()))
    notes[f"{outcomes.total()} mutated events into the handler"] = f"none unforeseen: {said}"


def test_prompts_of_a_megabyte_keep_nobody_waiting(tmp_path: Path, notes: dict[str, str]) -> None:
    body = json.dumps({"prompt": "Once upon a time " * 58_000}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"

    def send(_: int) -> bytes:
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
            connection.sendall(head.encode() + body)
            return connection.recv(12)

    with serving(tmp_path) as server, ThreadPoolExecutor(40) as pool:
        completion(server)
        before = peak_memory(server.process.pid)
        with health(server) as seconds:
            assert set(pool.map(send, range(120))) == {b"HTTP/1.1 400"}
        grown = (peak_memory(server.process.pid) - before) / 1e6
        assert grown < 200
    notes["120 prompts of 990 kB by 40 clients"] = f"all 400; {slowest(seconds)}; {grown:.0f} MB more memory"


def test_unfinished_headers_shut_nobody_out(tmp_path: Path, notes: dict[str, str]) -> None:
    with serving(tmp_path) as server, ExitStack() as stack:
        with health(server) as seconds:
            for _ in range(300):
                connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n")
            wait_until(lambda: len(seconds) > 20, "health was asked some times")
        assert completion(server).status_code == 200
        lines = [line for line in server.output.splitlines() if '"GET /health ' not in line]
        assert len(lines) < 50, lines[:60]
        held = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
    notes["300 connections with unfinished headers"] = (
        f"{slowest(seconds)}; {held} of {DESCRIPTORS} descriptors in use; {len(lines)} log lines"
    )


def test_an_endless_body_is_cut_off(tmp_path: Path, notes: dict[str, str]) -> None:
    sent = 0
    with serving(tmp_path) as server, health(server) as seconds:
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
            head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
            connection.sendall(head)
            started = time.monotonic()
            piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
            try:
                while time.monotonic() - started < SECONDS:
                    connection.sendall(piece)
                    sent += len(piece)
            except ConnectionError:
                pass
        took = time.monotonic() - started
    assert sent < 100_000_000
    notes["a chunked body without an end"] = f"cut off after {sent / 1e6:.0f} MB and {took:.1f} s; {slowest(seconds)}"


def test_clients_that_leave_cost_nothing_afterwards(tmp_path: Path, notes: dict[str, str]) -> None:
    with serving(tmp_path, QUEUE_LENGTH="200") as server:
        before = completion(server).json()["choices"]
        content = json.dumps({"prompt": "A fox", "max_tokens": 400, "ignore_eos": True, "stream": True}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n\r\n".encode()
        with health(server) as seconds:
            for number in range(100):
                with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
                    connection.sendall(head + content[: None if number % 3 else number])
                    if number % 10 == 1:
                        connection.recv(64)

        def idle() -> bool:
            return "causal_lm_admitted 0.0" in httpx2.get(f"{server.url}/metrics", timeout=PATIENCE).text

        wait_until(idle, "every place is free")
        assert completion(server).json()["choices"] == before
        assert "Traceback" not in server.output
    notes["100 clients that leave in the middle"] = f"every place free, the next answer the same; {slowest(seconds)}"


def test_sigterm_under_30_streams_ends_all_of_them_whole(tmp_path: Path, notes: dict[str, str]) -> None:
    def stream() -> str:
        fields = {"prompt": "A fox", "max_tokens": 300, "ignore_eos": True, "stream": True}
        return httpx2.post(f"{server.url}/v1/completions", json=fields, timeout=PATIENCE).text

    with serving(tmp_path, DRAIN_TIMEOUT="10") as server, ThreadPoolExecutor(30) as pool:
        streams = [pool.submit(stream) for _ in range(30)]

        def admitted() -> bool:
            return "causal_lm_admitted 30.0" in httpx2.get(f"{server.url}/metrics", timeout=PATIENCE).text

        wait_until(admitted, "all are admitted")
        server.process.send_signal(signal.SIGTERM)
        ends = Counter("[DONE]" if text.endswith("[DONE]\n\n") else "an error" for text in map(_result, streams))
        server.process.wait(PATIENCE)
        assert ends.total() == 30
        assert "Traceback" not in server.output
    said = ", ".join(f"{count} ended with {end}" for end, count in sorted(ends.items()))
    notes["SIGTERM under 30 streams"] = f"{said}; the process ended"


def _result(future: Any) -> str:
    return str(future.result())


def test_no_bytes_on_a_connection_do_harm(tmp_path: Path, notes: dict[str, str]) -> None:
    chance = random.Random(2)
    seed = (
        b'POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 31\r\n\r\n{"prompt":"fox","max_tokens":1}'
    )
    statuses: Counter[str] = Counter()
    with serving(tmp_path) as server:
        before = completion(server).json()["choices"]
        for _ in range(1500):
            data = bytearray(seed)
            for _ in range(chance.randint(1, 6)):
                at = chance.randrange(len(data))
                match chance.randrange(3):
                    case 0:
                        data[at] = chance.randrange(256)
                    case 1:
                        del data[at : at + chance.randrange(8)]
                    case _:
                        data[at:at] = chance.choice([b"\r\n", b"\x00", b"%00", b"\xff" * 4, b"../", b"A" * 300])
            with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
                connection.sendall(bytes(data))
                connection.shutdown(socket.SHUT_WR)
                try:
                    statuses[connection.recv(12)[9:].decode() or "closed"] += 1
                except ConnectionResetError:
                    statuses["closed"] += 1
        assert completion(server).json()["choices"] == before
        assert statuses["500"] == 0
        assert "Traceback" not in server.output
    said = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
    notes["1,500 mutated requests as bytes"] = f"no 500: {said}"
