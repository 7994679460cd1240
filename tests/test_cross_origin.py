"""Pages of other origins, in browsers, behind the front doors that leave them to the function."""

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from api.keys import ApiKeys
from aws.cross_origin import EXPOSED
from server import cross_origin
from settings import ROOT, Settings

APP, OTHER = "https://app.example", "https://other.example"
ASKED = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
CONTEXT = SimpleNamespace(
    aws_request_id="r",
    function_name="f",
    function_version="1",
    memory_limit_in_mb=1769,
    invoked_function_arn="arn",
    get_remaining_time_in_millis=lambda: 60_000,
)
BODY = {"prompt": "Once", "max_tokens": 2}


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The handler, where pages of APP may call."""
    import handler

    monkeypatch.setattr(handler, "SETTINGS", Settings(cors_origins=(APP, "https://second.example")))
    return handler


def event(door: str, method: str, headers: Mapping[str, str], body: Any = BODY) -> dict[str, Any]:
    """An event of `door`, a file of events/, with another request in it."""
    recorded: dict[str, Any] = json.loads((ROOT / "events" / f"{door}.json").read_text())
    recorded |= {"headers": dict(headers), "multiValueHeaders": None, "isBase64Encoded": False}
    recorded["body"] = "" if method == "OPTIONS" else json.dumps(body)
    if "httpMethod" in recorded:
        return recorded | {"httpMethod": method, "path": "/v1/completions"}
    recorded["requestContext"]["http"]["method"] = method
    return recorded | {"rawPath": "/v1/completions"}


@pytest.mark.parametrize("door", ["rest-api", "alb"])
def test_a_page_of_a_named_origin_may_call_and_read(handler: Any, door: str) -> None:
    answer = handler.lambda_handler(event(door, "POST", {"Origin": APP}), CONTEXT)
    assert answer["statusCode"] == 200
    assert answer["headers"]["access-control-allow-origin"] == APP
    assert answer["headers"]["access-control-expose-headers"] == ", ".join(EXPOSED)
    assert answer["headers"]["vary"] == "origin", "or a cache gives one page's answer to another"
    assert answer["headers"]["content-type"] == "application/json"


def test_its_faults_are_for_it_to_read_too(handler: Any) -> None:
    answer = handler.lambda_handler(event("rest-api", "POST", {"Origin": APP}, body={"prompt": 5}), CONTEXT)
    assert (answer["statusCode"], answer["headers"]["access-control-allow-origin"]) == (400, APP)


def test_its_browser_asks_first_and_without_a_key(handler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "KEYS", ApiKeys(["the-key"]))
    answer = handler.lambda_handler(event("rest-api", "OPTIONS", {"Origin": APP, **ASKED}), CONTEXT)
    assert (answer["statusCode"], answer["body"]) == (204, "")
    assert answer["headers"]["access-control-allow-origin"] == APP
    assert "POST" in answer["headers"]["access-control-allow-methods"]
    assert answer["headers"]["access-control-allow-headers"] == ASKED["access-control-request-headers"]
    refused = handler.lambda_handler(event("rest-api", "POST", {"Origin": APP}), CONTEXT)
    assert (refused["statusCode"], refused["headers"]["access-control-allow-origin"]) == (401, APP)


@pytest.mark.parametrize("method", ["POST", "OPTIONS"])
@pytest.mark.parametrize("headers", [{"Origin": OTHER}, {"Origin": "null"}, {}])
def test_pages_of_other_origins_may_not(handler: Any, method: str, headers: dict[str, str]) -> None:
    answer = handler.lambda_handler(event("rest-api", method, {**headers, **ASKED}), CONTEXT)
    assert "access-control-allow-origin" not in answer["headers"]
    assert answer["headers"]["vary"] == "origin"


def test_a_stream_says_it_in_its_head(handler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(cors_origins=(APP,), streaming_doors=("rest-api",))
    monkeypatch.setattr(handler, "SETTINGS", settings)
    for method, body in (("POST", {**BODY, "stream": True}), ("POST", BODY), ("OPTIONS", None)):
        answer = handler.lambda_handler(event("rest-api", method, {"Origin": APP, **ASKED}, body=body), CONTEXT)
        head, *_ = b"".join(answer.parts).partition(bytes(8))
        assert json.loads(head)["headers"]["access-control-allow-origin"] == APP


@pytest.mark.parametrize("door", ["http-api", "function-url"])
def test_doors_that_are_set_up_for_it_do_it_alone(handler: Any, door: str) -> None:
    answer = handler.lambda_handler(event(door, "POST", {"origin": APP}), CONTEXT)
    assert answer["statusCode"] == 200
    assert not [name for name in answer["headers"] if name.startswith("access-control")], "browsers refuse two of them"


def test_an_http_api_that_asks_for_signatures_passes_on_what_browsers_ask(handler: Any) -> None:
    """It adds its own headers; a browser takes no answer for a yes whose status is none of success."""
    answer = handler.lambda_handler(event("http-api", "OPTIONS", {"origin": APP, **ASKED}), CONTEXT)
    assert answer["statusCode"] == 204


def test_without_named_origins_no_answer_speaks_of_any(handler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "SETTINGS", Settings())
    answer = handler.lambda_handler(event("rest-api", "POST", {"Origin": APP}), CONTEXT)
    assert not {"vary", "access-control-allow-origin"} & answer["headers"].keys()
    asked = handler.lambda_handler(event("rest-api", "OPTIONS", {"Origin": APP, **ASKED}), CONTEXT)
    assert asked["statusCode"] == 405


def test_the_server_lets_pages_read_the_same_headers() -> None:
    assert EXPOSED == cross_origin.EXPOSED
