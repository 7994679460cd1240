"""Errors of Anthropic's Messages API: worded as its clients read them, by the server and behind a front door."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.keys import ApiKeys
from settings import Settings
from tests.test_cross_origin import event
from tests.test_handler_wiring import CONTEXT, handler
from tests.test_responses import events_in
from tests.test_server import Bench

__all__ = ["handler"]  # the fixture

PATH = "/v1/messages"
KEY = {"x-api-key": "the-key"}
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "go"}], "max_tokens": 9, "temperature": 0}


@pytest.fixture(scope="module")
def bench(llama_directory: Path) -> Iterator[Bench]:
    with Bench(llama_directory, keys=ApiKeys(["the-key"]), max_body_bytes=1000) as bench:
        yield bench


def error(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


@pytest.mark.parametrize(
    ("method", "headers", "body", "status", "kind", "message"),
    [
        ("POST", {}, ASKED, 401, "authentication_error", "You didn't provide an API key."),
        ("POST", KEY, {"messages": ASKED["messages"]}, 400, "invalid_request_error", "'max_tokens' is required."),
        ("POST", KEY, {**ASKED, "model": "other"}, 404, "not_found_error", "The model 'other' does not exist"),
        ("GET", KEY, None, 405, "invalid_request_error", "/v1/messages takes POST, not GET."),
        ("POST", KEY, {**ASKED, "system": "x" * 1000}, 413, "request_too_large", "The body is larger than"),
        ("POST", {**KEY, "content-encoding": "gzip"}, ASKED, 415, "invalid_request_error", "The body comes as 'gzip'"),
    ],
)
def test_a_refusal_is_worded_as_anthropic_s_clients_read_it(
    bench: Bench, method: str, headers: dict[str, str], body: Any, status: int, kind: str, message: str
) -> None:
    answer = bench.client.request(method, PATH, headers=headers, json=body)
    said = answer.json()["error"]["message"]
    assert said.startswith(message)
    assert (answer.status_code, answer.json()) == (status, error(kind, said))
    assert answer.headers["request-id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("fault", "status", "kind"), [(MemoryError(), 503, "overloaded_error"), (ValueError(), 500, "api_error")]
)
def test_a_failure_is_worded_so_too_whole_and_as_the_last_event_of_a_stream(
    bench: Bench, fault: Exception, status: int, kind: str
) -> None:
    for stream in (False, True):
        fails_at = bench.engine.forwards + 3

        def fail(fails_at: int = fails_at) -> None:
            if bench.engine.forwards == fails_at:
                raise fault

        bench.engine.before_forward = fail
        answer = bench.client.post(PATH, headers=KEY, json={**ASKED, "stream": stream})
        bench.engine.before_forward = lambda: None
        said = events_in(answer.text)[-1] if stream else answer.json()
        assert answer.status_code == (200 if stream else status)
        assert said == error(kind, said["error"]["message"])


def test_an_answer_has_its_id_by_the_name_that_the_api_s_clients_read(bench: Bench) -> None:
    answer = bench.client.post(PATH, headers=KEY, json=ASKED)
    assert answer.status_code == 200
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    other = bench.client.post("/v1/chat/completions", headers=KEY, json={**ASKED, "max_tokens": -1})
    assert (other.status_code, "type" in other.json(), "request-id" in other.headers) == (400, False, False)


def message_event(body: Any) -> dict[str, Any]:
    """An event of a Function URL that asks for a message."""
    return {**event("function-url", "POST", {}, body), "rawPath": PATH}


def test_an_error_behind_a_front_door_is_worded_so_too(handler: Any) -> None:
    answer = handler.lambda_handler(message_event({"messages": ASKED["messages"]}), CONTEXT)
    said = error("invalid_request_error", "'max_tokens' is required.")
    assert (answer["statusCode"], json.loads(answer["body"])) == (400, said)
    assert answer["headers"]["request-id"] == answer["headers"]["x-request-id"] == CONTEXT.aws_request_id


def test_an_error_in_a_stream_behind_a_front_door_is_worded_so_too(
    handler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "SETTINGS", Settings(streaming_doors=("function-url",)))
    monkeypatch.setattr(handler, "MAX_STREAM_BYTES", 1_000)
    sent: list[bytes] = []
    with pytest.raises(Exception, match="over the 0 MB"):
        sent.extend(handler.lambda_handler(message_event({**ASKED, "stream": True}), CONTEXT).parts)
    (last,) = events_in(sent[-1].decode())
    assert last == error("invalid_request_error", last["error"]["message"])
