"""Answers that the function streams: through which doors, in which bytes, and what ends them."""

import base64
import copy
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from settings import ROOT
from tests.gate import Gate
from tests.running_server import wait_until
from tools.emulator import Emulator
from tools.local_function import LocalFunction
from tools.runtime_api import Answer

FUNCTION = (sys.executable, "-m", "tests.gated_function", "handler.lambda_handler")
STREAMING, BUFFERED = ("function-url", "rest-api"), ("http-api", "alb", "alb-multi-value")
HTTP_INTEGRATION = "application/vnd.awslambda.http-integration-response"
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
REQUEST = {"prompt": "Once", "max_tokens": 6, "ignore_eos": True, "temperature": 0, "stream": True}
GATEWAY_SECONDS = 2.0


@pytest.fixture(scope="module")
def gate_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gate") / "gate"


@pytest.fixture(scope="module")
def function(gate_path: Path) -> Iterator[LocalFunction]:
    """The function behind doors of which two stream; one process for all tests, which so also outlives each."""
    env = {"STREAMING_DOORS": "function-url,rest-api", "GATE": str(gate_path), "GATEWAY_TIMEOUT": str(GATEWAY_SECONDS)}
    with LocalFunction({**env, "LOG_PROMPTS": "true"}, FUNCTION) as function:
        yield function


@pytest.fixture
def gate(gate_path: Path) -> Iterator[Gate]:
    with Gate(gate_path) as gate:
        yield gate


def http_event(source: str, body: Any, path: str = COMPLETIONS, method: str = "POST") -> dict[str, Any]:
    """The sample event of `source` with another request in it."""
    event: dict[str, Any] = copy.deepcopy(json.loads((ROOT / "events" / f"{source}.json").read_bytes()))
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    event |= {"body": base64.b64encode(raw).decode(), "isBase64Encoded": True}
    if event.get("version") == "2.0":
        event["rawPath"] = event["requestContext"]["http"]["path"] = path
        event["requestContext"]["http"]["method"] = method
    else:
        event |= {"path": path, "httpMethod": method}
    return event


def http_response(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a streamed HTTP response, whose head and NULs must be chunks of their own."""
    assert answer.complete
    assert answer.streamed
    assert answer.sent_headers["content-type"] == HTTP_INTEGRATION
    head, nuls, *body = [chunk.data for chunk in answer.chunks]
    assert nuls == bytes(8)
    fields = json.loads(head)
    assert set(fields) == {"statusCode", "headers"}
    return fields["statusCode"], fields["headers"], b"".join(body)


def objects(body: bytes) -> list[Any]:
    """The events of a stream without what differs from run to run; `[DONE]` as it is."""
    *events, end = body.decode().split("\n\n")
    assert end == ""
    datas = [event.removeprefix("data: ") for event in events]
    found = [data if data == "[DONE]" else json.loads(data) for data in datas]
    for each in found:
        if isinstance(each, dict):
            for name in ("id", "created"):
                each.pop(name, None)
    return found


def whole_body(answer: Answer) -> bytes:
    """The body of an HTTP response that came in one piece."""
    assert answer.complete
    assert not answer.streamed
    assert answer.sent_headers["content-type"] == "application/json"
    return str(json.loads(answer.body)["body"]).encode()


def logged(function: LocalFunction, answer: Answer, message: str) -> dict[str, Any]:
    """The log record of `answer`'s request that says `message`, which may be read a little after the answer."""

    def records() -> Iterator[dict[str, Any]]:
        for line in function.output:
            record = json.loads(line) if line.startswith("{") else {}
            if (record.get("message"), record.get("function_request_id")) == (message, answer.id):
                yield record

    wait_until(lambda: any(records()), f"a log record {message!r}")
    return next(records())


# --- Which answers stream


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@pytest.mark.parametrize("door", STREAMING)
def test_a_door_that_streams_gets_the_events_that_others_get_at_once(
    function: LocalFunction, door: str, path: str
) -> None:
    request = dict(REQUEST)
    if path == CHAT:
        request |= {"messages": [{"role": "user", "content": request.pop("prompt")}]}
    status, headers, body = http_response(function.invoke(http_event(door, request, path)))
    assert status == 200
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    for other in BUFFERED:
        assert objects(whole_body(function.invoke(http_event(other, request, path)))) == objects(body)
    assert objects(body)[-1] == "[DONE]"


@pytest.mark.parametrize("door", STREAMING)
def test_tokens_are_sent_as_they_are_made(function: LocalFunction, gate: Gate, door: str) -> None:
    answer = function.start(http_event(door, {**REQUEST, "logit_bias": {"70": 100}}))
    for token in range(1, 6):
        gate.open()
        answer.wait_for_chunks(2 + token)
        assert not answer.over
    gate.open()
    assert objects(http_response(answer.wait())[2])[-1] == "[DONE]"


@pytest.mark.parametrize("door", STREAMING)
@pytest.mark.parametrize(
    ("request_", "path", "method", "status"),
    [
        ({"prompt": "Once", "max_tokens": 2}, COMPLETIONS, "POST", 200),
        (b"", "/health", "GET", 200),
        ({**REQUEST, "temperature": 3}, COMPLETIONS, "POST", 400),
        ({**REQUEST, "prompt": "Once " * 1000}, COMPLETIONS, "POST", 400),
        (b"{", COMPLETIONS, "POST", 400),
        (REQUEST, "/v1/embeddings", "POST", 404),
    ],
)
def test_a_door_that_streams_gets_whole_answers_in_the_form_it_reads(
    function: LocalFunction, door: str, request_: Any, path: str, method: str, status: int
) -> None:
    got, headers, body = http_response(function.invoke(http_event(door, request_, path, method)))
    assert (got, headers["content-type"]) == (status, "application/json")
    if status != 200 or method == "GET":
        assert body == whole_body(function.invoke(http_event("http-api", request_, path, method)))
    else:
        assert json.loads(body)["usage"]["completion_tokens"] == 2


def test_a_direct_invocation_streams_the_bare_events(function: LocalFunction) -> None:
    answer = function.invoke(REQUEST)
    assert answer.complete
    assert answer.streamed
    assert answer.sent_headers["content-type"] == "text/event-stream; charset=utf-8"
    assert objects(answer.body) == objects(whole_body(function.invoke(http_event("alb", REQUEST))))


def test_a_bad_direct_request_for_a_stream_is_a_function_error(function: LocalFunction) -> None:
    answer = function.invoke({**REQUEST, "temperature": "hot"})
    assert answer.path.endswith("/error")
    assert answer.error is not None
    assert answer.error["errorType"] == "InvalidRequestError"


def test_without_the_setting_no_door_streams(gate_path: Path) -> None:
    with LocalFunction({}, FUNCTION) as function:
        for door in STREAMING:
            assert objects(whole_body(function.invoke(http_event(door, REQUEST))))[-1] == "[DONE]"


# --- What ends a stream


@pytest.mark.parametrize(("order", "kind"), [(b"m", "ServiceUnavailableError"), (b"!", "InternalError")])
@pytest.mark.parametrize("door", ["function-url", "direct"])
def test_an_error_in_the_middle_is_the_last_event_and_in_the_trailers(
    function: LocalFunction, gate: Gate, door: str, order: bytes, kind: str
) -> None:
    answer = function.start(REQUEST if door == "direct" else http_event(door, REQUEST))
    gate.open(3)
    gate.open(1, order)
    answer.wait()
    assert answer.complete
    assert answer.trailers["lambda-runtime-function-error-type"] == f"Function.{kind}"
    assert answer.error is not None
    assert answer.error["errorType"] == kind
    body = answer.body if door == "direct" else http_response(answer)[2]
    *_, last = objects(body)
    assert set(last) == {"error"}
    assert last["error"]["message"] == answer.error["errorMessage"]
    assert "secret" not in answer.body.decode() + json.dumps(answer.error)
    if kind == "InternalError":
        assert answer.id in last["error"]["message"]
        assert logged(function, answer, "unexpected error")["exception_name"] == "ZeroDivisionError"
    assert logged(function, answer, "request failed")["error"] == kind


def test_an_error_before_the_first_event_is_an_answer_of_its_own(function: LocalFunction, gate: Gate) -> None:
    answer = function.start(http_event("function-url", REQUEST))
    gate.open(1, b"m")
    status, headers, body = http_response(answer.wait())
    assert (status, headers["retry-after"]) == (503, "1")
    assert json.loads(body)["error"]["code"] == "out_of_memory"
    assert answer.trailers == {}


def test_the_invocation_s_deadline_ends_a_stream_and_says_so(function: LocalFunction, gate: Gate) -> None:
    answer = function.start({**REQUEST, "max_tokens": 600}, seconds=1.5)
    waiting = threading.Thread(target=answer.wait)
    waiting.start()
    while waiting.is_alive():  # 600 tokens would take 12 s
        gate.open()
        time.sleep(0.02)
    assert answer.complete
    *_, last, done = objects(answer.body)
    assert done == "[DONE]"
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["choices"][0]["cut_by_deadline"] is True


@pytest.mark.parametrize(("door", "cut"), [("http-api", True), ("rest-api", None)])
def test_the_gateway_s_deadline_does_not_cut_what_it_streams(
    function: LocalFunction, gate: Gate, door: str, cut: bool | None
) -> None:
    answer = function.start(http_event(door, REQUEST))
    gate.open(2)
    time.sleep(GATEWAY_SECONDS)  # what the test is about
    gate.open(4)
    answer.wait()
    body = http_response(answer)[2] if answer.streamed else whole_body(answer)
    assert objects(body)[-2]["choices"][0].get("cut_by_deadline") is cut


def test_a_reader_that_goes_away_ends_the_generation_within_a_token(function: LocalFunction, gate: Gate) -> None:
    answer = function.start(http_event("function-url", {**REQUEST, "max_tokens": 500}))
    gate.open(3)
    answer.wait_for_chunks(3)
    answer.abandon()
    answer.wait()
    gate.open(500)
    assert json.loads(function.invoke({"prompt": "Once", "max_tokens": 1}).body)["usage"]["completion_tokens"] == 1
    assert gate.left() >= 498, "one more than before the reader went, and one for the next invocation"


def test_a_stream_may_be_larger_than_six_megabytes(function: LocalFunction) -> None:
    request = {"messages": [{"role": "user", "content": "a"}], "logprobs": True, "top_logprobs": 20, "n": 7}
    request |= {"max_tokens": 600, "ignore_eos": True, "stream": True}
    _, _, body = http_response(function.invoke(http_event("function-url", request, CHAT)))
    assert len(body) > 6 * 2**20
    assert body.endswith(b"data: [DONE]\n\n")


# --- The log


def test_a_stream_is_logged_where_a_setting_says_so(function: LocalFunction) -> None:
    answer = function.invoke(http_event("function-url", REQUEST))

    def records() -> list[Any]:
        logged = [json.loads(line) for line in list(function.output) if '"prompt and completion"' in line]
        return [record for record in logged if record["function_request_id"] == answer.id]

    wait_until(lambda: bool(records()), "the log holds the answer")
    (record,) = records()
    assert json.loads(record["request"]) == REQUEST
    assert record["response"].encode() == http_response(answer)[2]


# --- A second opinion


def without_id(head: bytes) -> bytes:
    """A stream's head but for the request's id."""
    return re.sub(rb'"x-request-id": "[0-9a-f-]+"', b"", head)


@pytest.mark.parametrize("door", ["function-url", "direct"])
def test_aws_s_own_emulator_reads_the_same_bytes(function: LocalFunction, door: str) -> None:
    # The emulator gives a stream back whole, its head included, and drops trailers.
    event = REQUEST if door == "direct" else http_event(door, REQUEST)
    with Emulator({"STREAMING_DOORS": "function-url"}, FUNCTION) as emulator:
        for _ in range(2):
            read = emulator.invoke(event).payload.encode()
            head, nuls, body = read.rpartition(bytes(8))
            assert (nuls != b"") == (door != "direct")
            ours = function.invoke(event)
            assert objects(body) == objects(ours.body.rpartition(bytes(8))[2])
            assert without_id(head) == without_id(ours.body.rpartition(bytes(8))[0])
        assert emulator.invoke({"prompt": "Once", "max_tokens": 1}).payload["usage"]["completion_tokens"] == 1
