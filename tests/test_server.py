"""The FastAPI application on a real socket, around an engine whose forward passes the tests hand out one by one."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.keys import ApiKeys
from app import create_app, get_serving
from server.serving import Serving
from settings import Settings
from tests.deterministic_engine import DeterministicEngine, deterministic_model, read_tokenizer
from tests.running_server import PATIENCE, SMALL_BUFFER, served, wait_until

CHAT = {"messages": [{"role": "user", "content": "hello"}]}


class Steps:
    """Lets an engine make as many forward passes as a test has allowed; all of them once it is opened."""

    def __init__(self) -> None:
        self._allowed = threading.Semaphore(0)
        self._open = False
        self.waiting = 0
        """Forward passes asked for and not yet allowed."""
        self._lock = threading.Lock()

    def __call__(self) -> None:
        if self._open:
            return
        with self._lock:
            self.waiting += 1
        assert self._allowed.acquire(timeout=PATIENCE)
        with self._lock:
            self.waiting -= 1

    def allow(self, count: int) -> None:
        self._allowed.release(count)

    def open(self) -> None:
        self._open = True
        self._allowed.release(100_000)


class Bench:
    """A served application and the engine under it."""

    def __init__(self, directory: Path, *, stepped: bool = False, keys: ApiKeys | None = None, **settings: Any) -> None:
        self.steps = Steps()
        self.engine = DeterministicEngine(before_forward=self.steps)
        if not stepped:
            self.steps.open()
        model = deterministic_model(read_tokenizer(directory), self.engine)
        self.serving = Serving(model, Settings(**settings), keys)
        self._exits = ExitStack()

    def __enter__(self) -> "Bench":
        self.url = self._exits.enter_context(served(self.serving))
        self.client = self._exits.enter_context(httpx2.Client(base_url=self.url, timeout=PATIENCE))
        self._exits.callback(self.steps.open)
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def complete(self, **body: Any) -> httpx2.Response:
        return self.client.post("/v1/completions", json={"prompt": "the fox", "temperature": 0, **body})

    def raw(self, body: dict[str, Any], path: str = "/v1/completions") -> socket.socket:
        """A connection on which a request was sent."""
        host, port = self.url.removeprefix("http://").split(":")
        connection = socket.socket()
        connection.settimeout(PATIENCE)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        connection.connect((host, int(port)))
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content)
        return connection

    def metric(self, name: str) -> float:
        """One figure of /metrics, 0 while it does not exist."""
        lines = self.client.get("/metrics").text.splitlines()
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name} ")), 0.0)


@pytest.fixture
def stepped(llama_directory: Path) -> Iterator[Bench]:
    with Bench(llama_directory, stepped=True, concurrency=1, queue_length=1) as bench:
        yield bench


def events_of(text: str) -> list[Any]:
    """The data of a stream's events, `[DONE]` left out after checking that it is the last one."""
    data = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert data[-1] == "[DONE]"
    return [json.loads(line) for line in data[:-1]]


def test_the_event_loop_answers_while_tokens_are_computed(stepped: Bench) -> None:
    with ThreadPoolExecutor() as pool:
        running = pool.submit(stepped.complete, max_tokens=3)
        wait_until(lambda: stepped.steps.waiting == 1, "a forward pass is under way")
        assert stepped.client.get("/health").json() == {"status": "ok"}
        assert stepped.client.get("/ready").json()["status"] == "ready"
        stepped.steps.open()
        assert running.result().status_code == 200


def test_a_probe_may_ask_for_the_head_of_health_alone(llama_directory: Path) -> None:
    with Bench(llama_directory, keys=ApiKeys(["the-key"])) as bench:
        answer = bench.client.head("/health")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"] == "application/json"
        assert "head" not in bench.client.get("/openapi.json").json()["paths"]["/health"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_disconnects_stops_its_generation_within_one_token(stepped: Bench, stream: bool) -> None:
    connection = stepped.raw({"prompt": "the fox", "max_tokens": 500, "stream": stream})
    stepped.steps.allow(5)
    wait_until(lambda: stepped.engine.forwards == 5 and stepped.steps.waiting == 1, "five passes and a sixth begun")
    connection.close()
    wait_until(
        lambda: stepped.metric("causal_lm_disconnects_total") == 1, "the server has seen that the client is gone"
    )
    stepped.steps.allow(100)
    wait_until(lambda: stepped.serving.admission.admitted == 0, "its place is free")
    assert stepped.engine.forwards == 6
    stepped.steps.open()
    assert stepped.complete(max_tokens=2).status_code == 200


def test_a_client_that_disconnects_while_it_waits_frees_its_place(stepped: Bench) -> None:
    running = stepped.raw({"prompt": "the fox", "max_tokens": 2})
    wait_until(lambda: stepped.steps.waiting == 1, "the first request runs")
    waiting = stepped.raw({"prompt": "a dog", "max_tokens": 2})
    wait_until(lambda: stepped.serving.admission.admitted == 2, "the second request waits")
    waiting.close()
    wait_until(
        lambda: stepped.metric("causal_lm_disconnects_total") == 1, "the server has seen that the client is gone"
    )
    stepped.steps.open()
    assert running.recv(12) == b"HTTP/1.1 200"
    wait_until(lambda: stepped.serving.admission.admitted == 0, "both places are free")
    running.close()
    assert stepped.engine.forwards == 2


def test_requests_beyond_the_queue_are_told_when_to_come_back(stepped: Bench) -> None:
    with ThreadPoolExecutor() as pool:
        first = pool.submit(stepped.complete, max_tokens=3)
        wait_until(lambda: stepped.steps.waiting == 1, "the first request runs")
        second = pool.submit(stepped.complete, prompt="a dog", max_tokens=3)
        wait_until(lambda: stepped.serving.admission.admitted == 2, "the second request waits")
        refused = stepped.complete()
        assert refused.status_code == 429
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert stepped.client.post("/v1/chat/completions", json={**CHAT, "stream": True}).status_code == 429
        assert stepped.metric("causal_lm_admitted") == 2
        stepped.steps.open()
        assert first.result().json()["usage"]["completion_tokens"] == 3
        assert second.result().json()["timings"]["queue_ms"] > 0
    assert stepped.complete(max_tokens=1).status_code == 200


def test_200_clients_against_one_slot_get_the_right_answer_or_429(llama_directory: Path) -> None:
    prompts = [f"story number {number % 7}" for number in range(200)]
    with Bench(llama_directory, concurrency=1, queue_length=40) as bench:
        alone = {prompt: bench.complete(prompt=prompt, max_tokens=20).json()["choices"] for prompt in set(prompts)}
        limits = httpx2.Limits(max_connections=None)

        async def all_at_once() -> list[httpx2.Response]:
            async with httpx2.AsyncClient(base_url=bench.url, timeout=PATIENCE, limits=limits) as client:
                bodies = [{"prompt": prompt, "max_tokens": 20, "temperature": 0} for prompt in prompts]
                return await asyncio.gather(*(client.post("/v1/completions", json=body) for body in bodies))

        answers = asyncio.run(all_at_once())
    assert {answer.status_code for answer in answers} == {200, 429}
    right = [
        answer.json()["choices"] == alone[prompt]
        for prompt, answer in zip(prompts, answers, strict=True)
        if answer.status_code == 200
    ]
    assert len(right) >= 41
    assert all(right)


def test_a_request_that_finds_no_slot_in_its_time_is_told_to_come_back(llama_directory: Path) -> None:
    with (
        Bench(llama_directory, stepped=True, concurrency=1, queue_length=1, request_timeout=0.5) as bench,
        bench.raw({"prompt": "the fox", "max_tokens": 2}),
    ):
        wait_until(lambda: bench.steps.waiting == 1, "the first request runs")
        assert bench.complete().status_code == 429


@pytest.mark.parametrize("stream", [True, False])
def test_a_timeout_ends_with_the_text_so_far(llama_directory: Path, stream: bool) -> None:
    with Bench(llama_directory, request_timeout=3.0) as bench:
        whole = bench.complete(max_tokens=500).json()["choices"][0]
        assert "cut_by_deadline" not in whole
        bench.engine.before_forward = lambda: time.sleep(0.02)  # 500 of them take far longer than the request may
        answer = bench.complete(max_tokens=500, stream=stream)
    assert answer.status_code == 200
    choices = [part["choices"][0] for part in events_of(answer.text)] if stream else answer.json()["choices"]
    text = "".join(choice["text"] for choice in choices)
    assert choices[-1]["finish_reason"] == "length"
    assert choices[-1]["cut_by_deadline"] is True
    assert text
    assert whole["text"].startswith(text)


@pytest.mark.parametrize("stream", [True, False])
def test_running_out_of_memory_is_a_503_before_the_first_token_and_an_event_after(
    llama_directory: Path, stream: bool
) -> None:
    with Bench(llama_directory) as bench:
        fails_at = 3

        def fail() -> None:
            if bench.engine.forwards == fails_at:
                raise MemoryError

        bench.engine.before_forward = fail
        answer = bench.complete(max_tokens=10, stream=stream)
        if stream:
            events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
            assert answer.status_code == 200
            assert json.loads(events[-1])["error"]["code"] == "out_of_memory"
            assert json.loads(events[0])["choices"][0]["text"]
            fails_at = bench.engine.forwards
            answer = bench.complete(max_tokens=10, stream=True)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["error"]["code"] == "out_of_memory"
        fails_at = -1
        assert bench.complete(max_tokens=3).status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_the_unforeseen_is_logged_under_an_id_and_told_as_nothing_more(
    llama_directory: Path, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with Bench(llama_directory) as bench:

        def fail() -> None:
            if bench.engine.forwards == 3:
                raise ValueError("a secret of the inside")

        bench.engine.before_forward = fail
        answer = bench.complete(max_tokens=10, stream=stream)
        bench.engine.before_forward = lambda: None
        request_id = answer.headers["x-request-id"]
        error = json.loads(answer.text.split("data: ")[-1])["error"] if stream else answer.json()["error"]
        assert answer.status_code == (200 if stream else 500)
        assert error["message"] == f"Something went wrong here; the log has it under request {request_id}."
        assert "secret" not in answer.text
        assert any(request_id in record.getMessage() and record.exc_info for record in caplog.records)
        assert bench.complete(max_tokens=3).status_code == 200
        wait_until(lambda: bench.serving.admission.admitted == 0, "the slot is free")


def test_a_temperature_that_is_nearly_nothing_is_greedy(llama_directory: Path) -> None:
    with Bench(llama_directory) as bench:
        answers = [bench.complete(max_tokens=9, temperature=value).json() for value in (0, 5e-324)]
    assert answers[0]["choices"] == answers[1]["choices"]


def test_a_stream_that_is_refused_is_plain_json(llama_directory: Path) -> None:
    with Bench(llama_directory) as bench:
        for body in ({"stream": True}, {"prompt": "x", "stream": True, "temperature": 9}):
            answer = bench.client.post("/v1/completions", json=body)
            assert answer.status_code == 400
            assert answer.headers["content-type"] == "application/json"
            assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_reader_that_stalls_holds_no_slot(llama_directory: Path) -> None:
    request = {"prompt": "the fox", "max_tokens": 600, "stream": True, "logprobs": 5, "n": 2}
    with Bench(llama_directory, concurrency=1, queue_length=0) as bench, bench.raw(request):
        wait_until(lambda: bench.metric("causal_lm_completion_tokens_total") == 1200, "the stream is computed")
        assert bench.complete(max_tokens=2).status_code == 200


def test_a_body_over_the_limit_is_refused_before_it_is_sent(llama_directory: Path) -> None:
    with Bench(llama_directory, max_body_bytes=1000) as bench:
        host, port = bench.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 20000000\r\n\r\n")
            head = connection.recv(4096)
        assert head.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("chunked", [True, False])
def test_a_client_that_sends_20_mb_reads_the_refusal(llama_directory: Path, chunked: bool) -> None:
    with Bench(llama_directory, max_body_bytes=1000) as bench:
        content = (b" " * 1_000_000 for _ in range(20)) if chunked else b" " * 20_000_000
        answer = bench.client.post("/v1/completions", content=content)
        assert answer.status_code == 413
        assert answer.json()["error"]["message"] == "The body is larger than the 1000 bytes that this server takes."
        assert bench.complete(max_tokens=1).status_code == 200


def test_a_half_sent_body_is_given_up_and_its_connection_closed(llama_directory: Path) -> None:
    with Bench(llama_directory, body_timeout=0.2) as bench:
        host, port = bench.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
            connection.sendall(
                b'POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{"prompt"'
            )
            answer = b""
            while part := connection.recv(4096):
                answer += part
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"did not arrive within 0.2 seconds" in answer
        assert bench.complete(max_tokens=1).status_code == 200


def test_a_slow_body_keeps_nobody_waiting(llama_directory: Path) -> None:
    content = json.dumps({"prompt": "the fox", "max_tokens": 2}).encode()
    with Bench(llama_directory, concurrency=1, queue_length=0) as bench:
        host, port = bench.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
            head = f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n\r\n"
            connection.sendall(head.encode())
            for byte in content:
                assert bench.client.get("/health").status_code == 200
                connection.sendall(bytes([byte]))
                if byte == ord(","):
                    assert bench.complete(max_tokens=2).status_code == 200
            assert connection.recv(12) == b"HTTP/1.1 200"


def test_a_client_gone_in_the_middle_of_its_body_leaves_nothing_behind(
    llama_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Bench(llama_directory) as bench:
        host, port = bench.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
            connection.sendall(
                b'POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{"prompt"'
            )
        assert bench.complete(max_tokens=1).status_code == 200
        wait_until(lambda: bench.serving.admission.admitted == 0, "no request is admitted")
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("stream", [True, False])
def test_prompts_and_completions_are_logged_only_where_a_setting_says_so(
    llama_directory: Path, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    for log_prompts in (False, True):
        caplog.clear()
        with Bench(llama_directory, log_prompts=log_prompts) as bench:
            answer = bench.complete(prompt="a private matter", max_tokens=3, stream=stream)
            wait_until(lambda: bench.serving.admission.admitted == 0, "the answer is sent")
        assert ("a private matter" in caplog.text) is log_prompts
        assert (repr(answer.content)[2:60] in caplog.text) is log_prompts


def test_a_dependency_that_tests_override_gives_the_model(llama_directory: Path) -> None:
    model = deterministic_model(read_tokenizer(llama_directory), DeterministicEngine(context_length=77))
    app = create_app()
    app.dependency_overrides[get_serving] = lambda: Serving(model, Settings())

    async def ask() -> Any:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return (await client.get("/v1/models")).json()

    assert asyncio.run(ask())["data"][0]["max_model_len"] == 77


def test_draining_refuses_what_is_new_and_cuts_what_lasts(llama_directory: Path) -> None:
    with (
        Bench(llama_directory, stepped=True, concurrency=1, drain_timeout=0.5) as bench,
        ThreadPoolExecutor() as pool,
    ):
        running = pool.submit(bench.complete, max_tokens=500)
        wait_until(lambda: bench.steps.waiting == 1, "the request runs")
        waiting = pool.submit(bench.complete, max_tokens=5)
        wait_until(lambda: bench.serving.admission.admitted == 2, "another waits")
        drained = pool.submit(asyncio.run, bench.serving.drain())
        wait_until(lambda: bench.serving.draining, "the drain has begun")
        for refused in (bench.complete(), bench.client.get("/ready")):
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "shutting_down"
            assert refused.headers["retry-after"] == "1"
            assert refused.headers["connection"] == "close"
        assert bench.client.get("/health").status_code == 200
        drained.result()
        bench.steps.open()
        assert running.result().json()["choices"][0]["cut_by_deadline"] is True
        assert waiting.result().status_code == 503
