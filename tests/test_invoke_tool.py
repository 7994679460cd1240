"""tools/invoke.py against a server that speaks Lambda's Invoke API, as `sam local start-lambda` does."""

import json
import os
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ANSWER = {
    "choices": [{"text": "there was a fox."}],
    "usage": {"prompt_tokens": 4, "completion_tokens": 5},
    "timings": {"cold_start": False, "total_ms": 12.5},
}


def event_message(kind: str, content_type: str, payload: bytes) -> bytes:
    """One message as AWS frames it: lengths, their checksum, headers, payload, checksum of all."""
    headers = b""
    for name, value in ((":message-type", "event"), (":event-type", kind), (":content-type", content_type)):
        headers += (
            struct.pack(">B", len(name)) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        )
    lengths = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = lengths + struct.pack(">I", zlib.crc32(lengths)) + headers + payload
    return message + struct.pack(">I", zlib.crc32(message))


class InvokeApi(BaseHTTPRequestHandler):
    """Answers invocations with what the test put into `answer`, and keeps what it was asked."""

    answer: Any
    function_error: str | None
    asked: list[tuple[str, str, Any]]

    def do_POST(self) -> None:
        if self.path.endswith("/response-streaming-invocations"):
            self.stream()
            return
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind = self.headers["X-Amz-Invocation-Type"]
        self.asked.append((self.path, kind, body))
        answer = self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()
        payload = b"" if kind == "Event" else answer
        self.send_response(202 if kind == "Event" else 200)
        if self.function_error:
            self.send_header("X-Amz-Function-Error", self.function_error)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def stream(self) -> None:
        """The answer's parts, each a message of AWS's event stream format."""
        self.asked.append((self.path, "stream", json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
        messages = [event_message("PayloadChunk", "application/octet-stream", part) for part in self.answer]
        complete = {"ErrorCode": self.function_error, "ErrorDetails": "it broke"} if self.function_error else {}
        messages.append(event_message("InvokeComplete", "application/json", json.dumps(complete).encode()))
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.amazon.eventstream")
        self.send_header("Content-Length", str(sum(map(len, messages))))
        self.end_headers()
        self.wfile.write(b"".join(messages))

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[tuple[str, type[InvokeApi]]]:
    handler = type("Api", (InvokeApi,), {"answer": ANSWER, "function_error": None, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler
    server.shutdown()
    thread.join()
    server.server_close()


def invoke(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.invoke", "CausalLM", *arguments]
    regionless = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    regionless |= {"AWS_CONFIG_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=regionless)


def test_prints_the_text_and_the_figures(api: tuple[str, type[InvokeApi]]) -> None:
    url, handler = api
    result = invoke("--endpoint-url", url, "--prompt", "Once upon a time", "--max-tokens", "5")
    assert (result.returncode, result.stdout) == (0, "there was a fox.\n")
    assert "4 + 5 tokens" in result.stderr
    assert "total_ms 12.5" in result.stderr
    assert handler.asked == [
        (
            "/2015-03-31/functions/CausalLM/invocations",
            "RequestResponse",
            {"prompt": "Once upon a time", "max_tokens": 5},
        )
    ]


def test_a_chat_is_one_user_message(api: tuple[str, type[InvokeApi]]) -> None:
    url, handler = api
    handler.answer = {**ANSWER, "choices": [{"message": {"role": "assistant", "content": "Hello."}}]}
    assert invoke("--endpoint-url", url, "--chat", "Hi").stdout == "Hello.\n"
    assert handler.asked[0][2]["messages"] == [{"role": "user", "content": "Hi"}]


CALLS = [{"function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}]


def test_the_functions_that_an_answer_calls_are_shown(api: tuple[str, type[InvokeApi]]) -> None:
    url, handler = api
    handler.answer = {**ANSWER, "choices": [{"message": {"content": None, "tool_calls": CALLS}}]}
    shown = 'Calls weather with {"city": "Oslo"}\n'
    assert invoke("--endpoint-url", url, "--chat", "Hi").stdout == shown
    last = {"choices": [], "usage": ANSWER["usage"], "timings": {}}
    deltas: list[Any] = [{"content": None}, {"tool_calls": [{"function": {"name": "weather", "arguments": ""}}]}]
    deltas += [{"tool_calls": [{"function": {"arguments": text}}]} for text in ('{"city": ', '"Oslo"}')]
    parts = [*({"choices": [{"delta": delta}]} for delta in deltas), last]
    handler.answer = [b"data: " + json.dumps(part).encode() + b"\n\n" for part in parts]
    assert invoke("--endpoint-url", url, "--chat", "Hi", "--stream").stdout == shown


@pytest.mark.parametrize(
    ("answer", "status", "shown"),
    [
        (None, 0, "null\n"),
        (b"<html>", 2, "error: The function answered what is no JSON: '<html>'.\n"),
        ({**ANSWER, "timings": {}}, 0, "there was a fox.\n"),
        ({name: value for name, value in ANSWER.items() if name != "timings"}, 0, "there was a fox.\n"),
    ],
)
def test_an_answer_of_another_shape_is_no_traceback(
    answer: Any, status: int, shown: str, api: tuple[str, type[InvokeApi]]
) -> None:
    url, handler = api
    handler.answer = answer
    result = invoke("--endpoint-url", url, "--prompt", "Once")
    assert (result.returncode, result.stderr if status else result.stdout) == (status, shown)


@pytest.mark.parametrize(
    ("answer", "status", "shown"),
    [
        ({"models": ["demo"]}, 0, '{\n  "models": [\n    "demo"\n  ]\n}\n'),
        (ANSWER, 0, "there was a fox.\n"),
        ({"errorType": "InvalidRequestError", "errorMessage": "No."}, 1, "InvalidRequestError: No.\n"),
    ],
)
def test_an_answer_that_is_no_stream_is_shown_too(
    answer: Any, status: int, shown: str, api: tuple[str, type[InvokeApi]]
) -> None:
    url, handler = api
    handler.answer = [json.dumps(answer).encode()]
    result = invoke("--endpoint-url", url, "--prompt", "Once", "--stream")
    assert (result.returncode, result.stderr if status else result.stdout) == (status, shown)


EVENTS = [
    b'data: {"choices": [{"text": "there was"}]}\n\ndata: {"choices": [{"te',  # a chunk may end anywhere
    b'xt": " a fox."}]}\n\n',
    b'data: {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 5}, "timings": {"total_ms": 12.5}}\n\n',
    b"data: [DONE]\n\n",
]


def test_a_stream_s_text_is_printed_and_then_its_figures(api: tuple[str, type[InvokeApi]]) -> None:
    url, handler = api
    handler.answer = EVENTS
    result = invoke("--endpoint-url", url, "--prompt", "Once", "--stream")
    assert (result.returncode, result.stdout) == (0, "there was a fox.\n")
    assert "4 + 5 tokens" in result.stderr
    ((path, _, asked),) = handler.asked
    assert path == "/2021-11-15/functions/CausalLM/response-streaming-invocations"
    assert (asked["stream"], asked["stream_options"]) == (True, {"include_usage": True})


def test_a_stream_that_fails_is_exit_status_1(api: tuple[str, type[InvokeApi]]) -> None:
    url, handler = api
    error = b'data: {"error": {"message": "it broke"}}\n\n'
    handler.answer, handler.function_error = [EVENTS[0], EVENTS[1], error], "ServiceUnavailableError"
    result = invoke("--endpoint-url", url, "--prompt", "Once", "--stream")
    assert (result.returncode, result.stdout) == (1, "there was a fox.")
    assert result.stderr == "ServiceUnavailableError: it broke\n"


def test_an_event_goes_as_it_is_without_waiting(api: tuple[str, type[InvokeApi]], tmp_path: Path) -> None:
    url, handler = api
    event = tmp_path / "event.json"
    event.write_text('{"source": "aws.events"}')
    result = invoke("--endpoint-url", url, "--event", str(event), "--asynchronous")
    assert (result.returncode, result.stdout[:8]) == (0, "accepted")
    assert handler.asked[0][1:] == ("Event", {"source": "aws.events"})


@pytest.mark.parametrize("function_error", ["Unhandled", None], ids=["lambda", "sam-local"])
def test_a_function_error_is_exit_status_1(function_error: str | None, api: tuple[str, type[InvokeApi]]) -> None:
    url, handler = api
    handler.answer = {"errorType": "InvalidRequestError", "errorMessage": "max_tokens must be at least 1."}
    handler.function_error = function_error
    result = invoke("--endpoint-url", url, "--prompt", "Once", "--max-tokens", "0")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "InvalidRequestError: max_tokens must be at least 1.\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "error: You must specify a region.\n"),
        (("--endpoint-url", "nonsense"), "error: Invalid endpoint: nonsense\n"),
    ],
)
def test_no_region_and_no_url_are_exit_status_2(arguments: tuple[str, ...], said: str) -> None:
    result = invoke(*arguments, "--prompt", "Once")
    assert (result.returncode, result.stderr) == (2, said)


def test_a_list_cannot_be_streamed(tmp_path: Path) -> None:
    (tmp_path / "event.json").write_text("[]")
    result = invoke("--event", str(tmp_path / "event.json"), "--stream")
    assert (result.returncode, "only a request can be streamed" in result.stderr) == (2, True)


def test_no_one_there_is_exit_status_2() -> None:
    result = invoke("--endpoint-url", "http://127.0.0.1:9", "--prompt", "Once")
    assert result.returncode == 2
    assert "Could not connect" in result.stderr


@pytest.mark.parametrize(("content", "said"), [("{", "is not JSON"), (None, "cannot be read")])
def test_a_bad_event_file_is_exit_status_2(content: str | None, said: str, tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    if content is not None:
        event.write_text(content)
    result = invoke("--event", str(event))
    assert result.returncode == 2
    assert said in result.stderr


def test_an_event_larger_than_lambda_takes_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"prompt": "x" * 1_100_000}))
    result = invoke("--event", str(event), "--asynchronous")
    assert result.returncode == 2
    assert "Lambda takes 1,048,576 this way" in result.stderr
