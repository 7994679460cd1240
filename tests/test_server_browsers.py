"""A server without keys beside a browser: what pages of other origins send is refused, what programs send is not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.keys import ApiKeys
from tests.test_server import Bench

BODY = b'{"prompt": "the fox", "max_tokens": 1}'


@pytest.fixture(scope="module")
def bench(llama_directory: Path) -> Iterator[Bench]:
    with Bench(llama_directory, allowed_hosts=("models.example",)) as bench:
        yield bench


def status(bench: Bench, **headers: str) -> int:
    """Of a completion sent with these headers; `_` in their names stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return bench.client.post("/v1/completions", content=BODY, headers=named).status_code


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=utf-8", "application/x-www-form-urlencoded"]
)
def test_what_programs_send_is_taken(bench: Bench, kind: str) -> None:
    assert status(bench, content_type=kind) == 200
    assert status(bench) == 200


@pytest.mark.parametrize("kind", ["text/plain", "text/plain;charset=UTF-8", "multipart/form-data; boundary=x"])
def test_what_only_a_form_would_send_is_told_what_to_send(bench: Bench, kind: str) -> None:
    answer = bench.client.post("/v1/completions", content=BODY, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "Send the body as application/json.")


@pytest.mark.parametrize("origin", ["http://evil.example", "https://127.0.0.2", "null", "http://localhost:1"])
@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded"])
def test_pages_of_another_origin_are_refused(bench: Bench, origin: str, kind: str) -> None:
    assert status(bench, origin=origin, content_type=kind) == 403


def test_the_documentation_s_own_page_may_try_the_api(bench: Bench) -> None:
    assert status(bench, origin=bench.url) == 200


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "api.localhost:80", "127.0.0.1", "10.1.2.3:8000", "[::1]:8000", "models.example"],
)
def test_the_server_s_own_names_and_addresses_are_answered(bench: Bench, host: str) -> None:
    assert status(bench, host=host) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example"]
)
def test_a_name_that_was_made_to_resolve_here_is_refused(bench: Bench, host: str) -> None:
    assert status(bench, host=host) == 403
    for path in ("/v1/models", "/ready", "/metrics"):
        assert bench.client.get(path, headers={"host": host}).status_code == 403
    assert bench.client.get("/health", headers={"host": host}).status_code == 200


APP = "https://app.example"
PREFLIGHT = {"origin": APP, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}


@pytest.mark.parametrize("keys", [None, ApiKeys(["the-key"])])
def test_pages_of_a_named_origin_may_call_and_read(llama_directory: Path, keys: ApiKeys | None) -> None:
    with Bench(llama_directory, keys=keys, cors_origins=(APP,)) as bench:
        asked = bench.client.options("/v1/completions", headers=PREFLIGHT)
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == APP
        assert "authorization" in asked.headers["access-control-allow-headers"]
        headers = {"origin": APP, "authorization": "Bearer the-key", "content-type": "application/json"}
        answer = bench.client.post("/v1/completions", content=BODY, headers=headers)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, APP)
        assert "server-timing" in answer.headers["access-control-expose-headers"]
        fault = bench.client.post("/v1/completions", content=b"{", headers=headers)
        assert (fault.status_code, fault.headers["access-control-allow-origin"]) == (400, APP)


def test_pages_of_other_origins_stay_out_beside_a_named_one(llama_directory: Path) -> None:
    with Bench(llama_directory, cors_origins=(APP,)) as bench:
        assert bench.client.options("/v1/completions", headers={**PREFLIGHT, "origin": "https://x.example"}).is_error
        assert status(bench, origin="https://x.example", content_type="application/json") == 403
        assert status(bench, origin=APP, host="evil.example", content_type="application/json") == 403


def test_any_origin_needs_keys(llama_directory: Path) -> None:
    with Bench(llama_directory, cors_origins=("*",)) as bench:
        assert status(bench, origin=APP, content_type="application/json") == 403
    with Bench(llama_directory, keys=ApiKeys(["the-key"]), cors_origins=("*",)) as bench:
        assert status(bench, origin=APP, authorization="Bearer the-key") == 200
        assert status(bench, origin=APP) == 401


def test_without_named_origins_no_answer_speaks_of_any(bench: Bench) -> None:
    assert bench.client.options("/v1/completions", headers=PREFLIGHT).is_error
    assert not [name for name in bench.client.get("/health", headers={"origin": APP}).headers if "allow-" in name]


def test_with_keys_the_key_decides(llama_directory: Path) -> None:
    with Bench(llama_directory, keys=ApiKeys(["the-key"])) as bench:
        headers = {"host": "models.example", "origin": "http://page.example", "content_type": "text/plain"}
        assert status(bench, **headers, authorization="Bearer the-key") == 200
        assert status(bench, **headers) == 401
