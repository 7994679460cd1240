"""Bodies that are refused as they come, by the function behind each front door and by the server."""

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.errors import UnsupportedEncodingError
from tests.test_cross_origin import BODY, event
from tests.test_handler_wiring import CONTEXT, handler
from tests.test_server import Bench

__all__ = ["handler"]  # the fixture

DOORS = ("rest-api", "http-api", "function-url", "alb", "alb-multi-value")
COMPRESSED = gzip.compress(json.dumps(BODY).encode())
SENTENCE = "The body comes as 'gzip'; send it as plain JSON, without a 'content-encoding'."


def http_event(door: str, headers: dict[str, str], body: str) -> dict[str, Any]:
    """An event of `door` whose body comes in base64."""
    made = event(door, "POST", headers) | {"body": body, "isBase64Encoded": True}
    if door == "alb-multi-value":
        made |= {"headers": None, "multiValueHeaders": {name: [value] for name, value in headers.items()}}
    return made


def refusal(answer: dict[str, Any]) -> tuple[int, str]:
    return answer["statusCode"], json.loads(answer["body"])["error"]["message"]


@pytest.mark.parametrize("door", DOORS)
def test_a_compressed_body_is_refused_with_what_to_do_behind_every_door(handler: Any, door: str) -> None:
    made = http_event(door, {"Content-Encoding": "gzip"}, base64.b64encode(COMPRESSED).decode())
    answer = handler.lambda_handler(made, CONTEXT)
    assert refusal(answer) == (415, SENTENCE)
    headers = answer["headers"] if "headers" in answer else answer["multiValueHeaders"]
    assert headers["accept-encoding"] in ("identity", ["identity"])


@pytest.mark.parametrize("encoding", ["", "identity", " Identity"])
def test_a_body_that_is_said_not_to_be_compressed_is_read(handler: Any, encoding: str) -> None:
    made = http_event("rest-api", {"Content-Encoding": encoding}, base64.b64encode(json.dumps(BODY).encode()).decode())
    assert handler.lambda_handler(made, CONTEXT)["statusCode"] == 200


@pytest.mark.parametrize("door", DOORS)
def test_a_body_that_is_not_the_base64_it_is_said_to_be_is_told_so(handler: Any, door: str) -> None:
    said = "'body' of this HTTP event is not the base64 that it is said to be."
    assert refusal(handler.lambda_handler(http_event(door, {}, json.dumps(BODY)), CONTEXT)) == (400, said)


@pytest.fixture(scope="module")
def client(llama_directory: Path) -> Iterator[httpx2.Client]:
    with Bench(llama_directory) as bench:
        yield bench.client


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/responses", "/tokenize"])
def test_a_compressed_body_is_refused_by_the_server_in_the_same_words(client: httpx2.Client, path: str) -> None:
    answer = client.post(path, content=COMPRESSED, headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (415, SENTENCE)
    assert answer.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/messages", "/detokenize"])
def test_the_document_says_that_a_compressed_body_is_refused(client: httpx2.Client, path: str) -> None:
    responses = client.get("/openapi.json").json()["paths"][path]["post"]["responses"]
    assert responses[str(UnsupportedEncodingError.status)]["description"] == "The body is compressed"
